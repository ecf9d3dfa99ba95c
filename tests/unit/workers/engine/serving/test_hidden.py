"""Files of hidden states: bounded, private, whole or gone."""

import os
import time
from pathlib import Path

import torch

from workers.engine.serving.batch import keep_drawn
from workers.engine.serving.hidden import HiddenFolder
from workers.engine.serving.rows import Row

ROW = torch.arange(8, dtype=torch.bfloat16)


def folder(path: Path, **options: float) -> HiddenFolder:
    return HiddenFolder(path, expiry_s=options.get("expiry_s", 60.0), most_bytes=int(options.get("most_bytes", 1000)))


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    file = folder(tmp_path / "hidden").open("one")
    file.append(ROW)
    assert not file.path.exists()
    file.finish()
    assert file.path.stat().st_size == 16
    file.resume()
    assert not file.path.exists()
    file.append(2 * ROW)
    file.finish()
    found = torch.frombuffer(bytearray(file.path.read_bytes()), dtype=torch.bfloat16).view(-1, 8)
    assert torch.equal(found, torch.stack([ROW, 2 * ROW]))
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.parent.stat().st_mode & 0o777 == 0o700


def test_the_state_of_each_drawn_token_is_written_once_from_the_first_on(tmp_path: Path) -> None:
    row = Row(None, [1, 2], [], hidden=folder(tmp_path).open("one"))
    for state, drawn in ((0 * ROW, False), (ROW, True), (9 * ROW, False), (2 * ROW, True)):
        row.pending = state
        row.output += [7] * drawn
        keep_drawn(row)
    row.hidden.finish()
    found = torch.frombuffer(bytearray(row.hidden.path.read_bytes()), dtype=torch.bfloat16).view(-1, 8)
    assert torch.equal(found, torch.stack([ROW, 2 * ROW]))


def test_float32_states_are_kept_as_bfloat16(tmp_path: Path) -> None:
    file = folder(tmp_path).open("one")
    file.append(torch.tensor([1.0, 2.0, 3.00001]))
    file.finish()
    assert torch.frombuffer(bytearray(file.path.read_bytes()), dtype=torch.bfloat16).tolist() == [1, 2, 3]


def test_nothing_is_kept_beyond_the_bound(tmp_path: Path) -> None:
    bounded = folder(tmp_path, most_bytes=40)
    one, other = bounded.open("one"), bounded.open("other")
    for _ in range(2):
        one.append(ROW)
    other.append(ROW)
    one.finish()
    other.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["one.bin"]


def test_what_expired_is_swept_and_its_room_is_free_again(tmp_path: Path) -> None:
    swept = folder(tmp_path, most_bytes=32)
    file = swept.open("old")
    file.append(ROW)
    file.append(ROW)
    file.finish()
    past = time.time() - 120
    os.utime(file.path, (past, past))
    assert not swept.take(1)
    swept.sweep(now=time.time() + 30)
    assert list(tmp_path.iterdir()) == []
    assert swept.take(32)


def test_a_second_request_of_one_id_keeps_nothing(tmp_path: Path) -> None:
    kept = folder(tmp_path)
    first = kept.open("one")
    assert kept.open("one") is None
    first.append(ROW)
    first.finish()
    assert first.path.stat().st_size == 16
