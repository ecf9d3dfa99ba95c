"""The file of runs: added to, read back, and forgiving."""

import json
from dataclasses import replace
from pathlib import Path

from workers.analysis.flips.runs import FILE, Run, add, read

RUN = Run("diag_1", "arc", "f" * 64, 200, 11, 0.3, reference="r", candidate="c", text="t", finished_at=5.0)


def test_what_was_added_is_read(tmp_path: Path) -> None:
    assert read(tmp_path) == []
    add(tmp_path, [])
    assert not (tmp_path / FILE).exists()
    other = replace(RUN, job="diag_2", candidate="d", flips=40, kl=1.1)
    add(tmp_path, [RUN])
    add(tmp_path, [other])
    assert read(tmp_path) == [RUN, other]
    assert RUN.rate == 0.055


def test_a_job_that_was_told_twice_is_one_run(tmp_path: Path) -> None:
    add(tmp_path, [RUN, replace(RUN, finished_at=9.0)])
    assert read(tmp_path) == [replace(RUN, finished_at=9.0)]


def test_the_same_models_on_the_same_task_are_one_observation(tmp_path: Path) -> None:
    add(tmp_path, [RUN, replace(RUN, job="diag_2"), replace(RUN, job="diag_3", fingerprint="e" * 64)])
    assert [run.job for run in read(tmp_path)] == ["diag_2", "diag_3"]


def test_draws_of_one_task_answered_by_the_same_models_are_one_observation_of_the_most_items(tmp_path: Path) -> None:
    drawn = replace(RUN, job="diag_2", fingerprint="e" * 64, items=12, flips=1, source=RUN.fingerprint)
    other = replace(drawn, job="diag_3", candidate="d", fingerprint="d" * 64, items=16)
    add(tmp_path, [RUN, drawn, other])
    assert read(tmp_path) == [RUN, other]
    assert {run.identity for run in read(tmp_path)} == {RUN.fingerprint}


def test_what_cannot_be_read_or_says_nothing_is_passed_over(tmp_path: Path) -> None:
    add(tmp_path, [RUN, replace(RUN, job="a", candidate="x", kl=0.0), replace(RUN, job="b", candidate="y", flips=300)])
    line = (tmp_path / FILE).read_text().splitlines()[0]
    with (tmp_path / FILE).open("a") as file:
        file.write('{"job": "cut off\n[]\n7\n{"job": "x"}\n')
        file.write(
            json.dumps({"job": "j", "task": "t", "fingerprint": "f", "items": "many", "flips": 1, "kl": 1}) + "\n"
        )
        file.write(json.dumps(json.loads(line) | {"finished_at": "yesterday", "job": "k", "candidate": "z"}) + "\n")
    with (tmp_path / FILE).open("ab") as damaged:
        damaged.write(b"\xff\xfe\n")
    assert read(tmp_path) == [RUN]


def test_a_line_that_was_cut_off_does_not_swallow_the_next(tmp_path: Path) -> None:
    add(tmp_path, [RUN])
    with (tmp_path / FILE).open("a") as file:
        file.write('{"job": "cut')
    other = replace(RUN, job="diag_2", candidate="d", kl=1)
    add(tmp_path, [other])
    assert read(tmp_path) == [RUN, other]
