"""The test set, which is opened once.

Whatever is looked at before a decision becomes part of the fit. So the test is sealed until everything that could
depend on it is frozen: the fitted calibrators, the choice among them, the rule. Opening it names the hash of all that
and writes it down. An attempt that was killed in mid-test may open it again, for the same frozen choice and no other.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from app.files import write_atomically

T = TypeVar("T")


class AlreadyReadError(RuntimeError):
    """The test was read before, for another choice or in this very object: nothing it says now would be unbiased."""


@dataclass(frozen=True)
class Opened(Generic[T]):
    """The content, the hash that it was opened for, and when it was opened first (Unix seconds)."""

    content: T
    frozen: str
    at: float


class Sealed(Generic[T]):
    """Holds back what `read` gives until it is opened. `seal` is the file that remembers it across attempts."""

    def __init__(self, read: Callable[[], T], seal: Path) -> None:
        self._read: Callable[[], T] | None = read
        self._seal = seal

    def open(self, frozen: str) -> Opened[T]:
        """The content. Raises `AlreadyReadError` at the second call, and where it was opened for another choice."""
        if self._read is None:
            raise AlreadyReadError("the test set was read already")
        at = time.time()
        if self._seal.exists():
            before = json.loads(self._seal.read_text(encoding="utf-8"))
            if before["frozen"] != frozen:
                raise AlreadyReadError("the test set was read for another choice")
            at = before["at"]
        else:
            write_atomically(self._seal, json.dumps({"frozen": frozen, "at": at}).encode())
        read, self._read = self._read, None
        return Opened(read(), frozen, at)
