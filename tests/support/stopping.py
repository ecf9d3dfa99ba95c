"""A caller that wants what it has called to stop."""

import contextlib
import itertools
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


class StoppedError(Exception):
    """Raised by who is asked whether to stop."""


class Stop:
    """Who is asked whether to go on: counts the looks, and stops from one of them on; at 0 never."""

    def __init__(self, at: int = 0) -> None:
        self.at, self.calls = at, 0

    def __call__(self) -> None:
        self.calls += 1
        if 0 < self.at <= self.calls:
            raise StoppedError


def stop_after(looks: int = 0) -> Stop:
    """Lets so many looks pass, and stops at the next one."""
    return Stop(looks + 1)


def until_done(attempt: Callable[[Callable[[], None]], Result], patience: Callable[[int], int]) -> tuple[Result, int]:
    """The result of the first attempt that ends, each being stopped after `patience(number of attempt)` looks; and how
    many attempts it took."""
    for number in itertools.count(1):
        with contextlib.suppress(StoppedError):
            return attempt(stop_after(patience(number))), number
    raise AssertionError
