"""A caller that wants what it has called to stop."""

import contextlib
import itertools
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


class StoppedError(Exception):
    """Raised by who is asked whether to stop."""


def stop_after(looks: int = 0) -> Callable[[], None]:
    """Lets so many looks pass, and stops at the next one."""
    left = iter(range(looks))

    def check() -> None:
        if next(left, None) is None:
            raise StoppedError

    return check


def until_done(attempt: Callable[[Callable[[], None]], Result], patience: Callable[[int], int]) -> tuple[Result, int]:
    """The result of the first attempt that ends, each being stopped after `patience(number of attempt)` looks; and how
    many attempts it took."""
    for number in itertools.count(1):
        with contextlib.suppress(StoppedError):
            return attempt(stop_after(patience(number))), number
    raise AssertionError
