"""Reductions over chunks: stopped anywhere, they end as if they had not been, and nothing is done twice."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support.stopping import StoppedError
from workers.calibration.reductions import Reductions, State


def parts(stop_at: int = -1) -> Iterator[torch.Tensor]:
    """Seven chunks of unequal length; told to stop before one of them."""
    draws = torch.Generator().manual_seed(0)
    for number, length in enumerate((3, 1, 4, 1, 5, 9, 2)):
        part = torch.randn(length, generator=draws, dtype=torch.float64)
        if number == stop_at:
            raise StoppedError
        yield part


class Counted:
    """Adds, and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def add(self, state: State, part: torch.Tensor) -> State:
        self.calls += 1
        return {"sum": state["sum"] + part.sum()}

    def rows(self, part: torch.Tensor) -> State:
        self.calls += 1
        return {"row": part, "negative": part < 0}


ZERO = {"sum": torch.zeros((), dtype=torch.float64)}


@pytest.mark.parametrize("stop_at", range(7))
def test_one_that_was_stopped_goes_on_at_its_chunk_and_ends_in_the_same_bits(tmp_path: Path, stop_at: int) -> None:
    whole = Reductions().of("sum", ZERO, parts(), Counted().add)
    counted = Counted()
    with pytest.raises(StoppedError):
        Reductions(tmp_path).of("sum", ZERO, parts(stop_at), counted.add)
    assert counted.calls == stop_at
    found = Reductions(tmp_path).of("sum", ZERO, parts(), counted.add)
    assert counted.calls == 7, "each chunk once"
    assert torch.equal(found["sum"], whole["sum"])
    again = Reductions(tmp_path).of("sum", ZERO, iter(()), counted.add)
    assert torch.equal(again["sum"], whole["sum"]), "it is taken from disk, no chunk is asked for"


def test_rows_of_all_parts_come_one_after_the_other(tmp_path: Path) -> None:
    counted = Counted()
    with pytest.raises(StoppedError):
        Reductions(tmp_path).columns("rows", parts(4), counted.rows)
    found = Reductions(tmp_path).columns("rows", parts(), counted.rows)
    assert counted.calls == 7
    assert torch.equal(found["row"], torch.cat(list(parts())))
    assert torch.equal(found["negative"], found["row"] < 0)


@pytest.mark.parametrize("damage", ["empty", "cut", "nonsense", "of another kind"])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: str) -> None:
    counted = Counted()
    whole = Reductions(tmp_path).of("sum", ZERO, parts(), counted.add)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    file.write_bytes({"empty": b"", "cut": content[:-3], "nonsense": b"x" * 100}.get(damage, b'{"a": 1}'))
    found = Reductions(tmp_path).of("sum", ZERO, parts(), counted.add)
    assert counted.calls == 14
    assert torch.equal(found["sum"], whole["sum"])
    assert file.read_bytes() == content


def test_names_are_told_apart_by_the_part_of_the_computation(tmp_path: Path) -> None:
    made = Reductions(tmp_path)
    made.of("sum", ZERO, parts(), Counted().add)
    made.at("other").of("sum", ZERO, iter(()), Counted().add)
    assert made.at("other").of("sum", ZERO, parts(), Counted().add)["sum"] == 0
    with pytest.raises(ValueError, match="already"):
        made.of("sum", ZERO, parts(), Counted().add)
    made.drop()
    assert not tmp_path.exists()


def test_a_full_disk_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("workers.calibration.reductions.write_atomically", full)
    counted = Counted()
    with pytest.raises(StoppedError):
        Reductions(tmp_path).of("sum", ZERO, parts(3), counted.add)
    Reductions(tmp_path).of("sum", ZERO, parts(), counted.add)
    assert counted.calls == 10
