import json
from pathlib import Path

import pytest

from workers.text.storage import read_checked, write_checked


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    assert read_checked(path) is None
    write_checked(path, {"tokens": [[1, 2], []], "name": "é"})
    assert read_checked(path) == {"tokens": [[1, 2], []], "name": "é"}
    assert [file.name for file in path.parent.iterdir()] == ["b.json"]


def test_a_sound_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_checked(path, {"first": 1})
    write_checked(path, {"second": 2})
    assert read_checked(path) == {"first": 1}


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"sha256": "00", "data": {"first": 1}}',
        b'{"data": {"first": 1}}',
        b'{"sha256": "", "data": [1]}',
    ],
)
def test_a_damaged_file_counts_as_none_and_is_replaced(damaged: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(damaged)
    assert read_checked(path) is None
    assert not path.exists()
    path.write_bytes(damaged)
    write_checked(path, {"first": 1})
    assert read_checked(path) == {"first": 1}


def test_a_flipped_value_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_checked(path, {"tokens": [1, 2, 3]})
    outer = json.loads(path.read_text())
    outer["data"]["tokens"][1] = 7
    path.write_text(json.dumps(outer))
    assert read_checked(path) is None
