"""Files of harness tasks, as far as they are read before a job is queued."""

import json

import pytest
from pydantic import ValidationError

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.task import HarnessTask
from app.models.tasks.harness import HarnessRows, read_rows
from app.settings import Settings

ROWS = [{"goal": f"open a jar {number}", "sol1": "turn", "sol2": "shout", "label": 0} for number in range(4)]


@pytest.fixture
def settings(tmp_path):
    for name, rows in (
        ("items", ROWS),
        ("other", [{"goal": "x", "sol1": "a", "sol2": "b", "label": 1}]),
        ("empty", []),
    ):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Settings(home=tmp_path / "home", text_root=tmp_path)


def read(settings, **fields):
    task = {"source": "harness", "task": "piqa", "path": "items.jsonl"} | fields
    return read_rows(HarnessTask.model_validate(task), settings, pointer="/tasks/0")


def test_rows_are_read_as_they_are(settings, tmp_path):
    (tmp_path / "items.csv").write_text("goal\na\nb\n")
    assert read(settings).items == ROWS
    found = read(settings, examples="other.jsonl", shots=1)
    assert [row["goal"] for row in found.examples] == ["x"]
    with pytest.raises(HemostatError, match=r"takes \.jsonl"):
        read(settings, path="items.csv")


def test_what_can_be_refused_at_once_is(settings, tmp_path):
    (tmp_path / "broken.jsonl").write_text('{"goal": "a"}\n["b"]\n')
    for fields, code, pointer in (
        ({"path": "none.jsonl"}, ErrorCode.TEXT_NOT_FOUND, "path"),
        ({"path": "../x.jsonl"}, ErrorCode.PATH_FORBIDDEN, "path"),
        ({"path": "broken.jsonl"}, ErrorCode.TASK_INVALID, "path"),
        ({"items": 5}, ErrorCode.TASK_INVALID, "items"),
        ({"path": "other.jsonl"}, ErrorCode.TASK_INVALID, "path"),
        ({"path": "other.jsonl", "items": 2}, ErrorCode.TASK_INVALID, "path"),
        ({"path": "empty.jsonl"}, ErrorCode.TASK_INVALID, "path"),
        ({"examples": "other.jsonl", "shots": 2}, ErrorCode.TASK_INVALID, "shots"),
    ):
        with pytest.raises(HemostatError) as refused:
            read(settings, **fields)
        assert (refused.value.code, refused.value.pointer) == (code, f"/tasks/0/{pointer}")
    with pytest.raises(ValidationError):
        read(settings, shots=0, examples="other.jsonl")


def test_each_choice_is_read_by_itself_in_the_estimate():
    flat, listed = {"goal": "abcd"}, {"goal": "ab", "choices": ["x", "y", "z"]}
    nested = {"question": "ab", "choices": {"text": ["x", "y", "z"], "label": ["A", "B", "C"]}}
    for row, choices in ((flat, 1), (listed, 3), (nested, 3)):
        assert HarnessRows([row] * 4, ()).characters(2) == pytest.approx(2 * choices * len(json.dumps(row)))


def test_the_fingerprint_is_of_all_rows_and_of_the_scoring():
    rows = HarnessRows(ROWS, ())
    assert rows.fingerprint("a") == HarnessRows(list(ROWS), ()).fingerprint("a")
    others = [
        rows.fingerprint("b"),
        HarnessRows(ROWS[:3], ()).fingerprint("a"),
        HarnessRows(ROWS, ROWS[:1]).fingerprint("a"),
    ]
    moved = HarnessRows(ROWS[:3], ROWS[3:]).fingerprint("a")
    assert len({rows.fingerprint("a"), moved, *others}) == 5
