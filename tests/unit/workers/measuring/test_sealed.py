from pathlib import Path

import pytest

from workers.measuring.sealed import AlreadyReadError, Sealed


class Reads:
    """Counts how often the content was read."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> str:
        self.count += 1
        return "the test"


def test_it_opens_once(tmp_path: Path) -> None:
    read = Reads()
    sealed = Sealed(read, tmp_path / "seal")
    assert read.count == 0, "nothing is read before it is opened"
    opened = sealed.open("choice")
    assert (opened.content, opened.frozen) == ("the test", "choice")
    with pytest.raises(AlreadyReadError):
        sealed.open("choice")
    assert read.count == 1


def test_a_killed_attempt_goes_on_with_the_same_choice_and_no_other(tmp_path: Path) -> None:
    seal = tmp_path / "seal"
    first = Sealed(Reads(), seal).open("choice")
    read = Reads()
    other = Sealed(read, seal)
    with pytest.raises(AlreadyReadError, match="another choice"):
        other.open("a better choice")
    assert read.count == 0
    again = other.open("choice")
    assert (again.content, again.at) == (first.content, first.at)


def test_it_is_written_down_before_it_is_read(tmp_path: Path) -> None:
    seal = tmp_path / "seal"

    def fail() -> str:
        assert seal.exists()
        raise OSError

    sealed = Sealed(fail, seal)
    with pytest.raises(OSError):
        sealed.open("choice")
    with pytest.raises(AlreadyReadError):
        Sealed(Reads(), seal).open("another choice")
