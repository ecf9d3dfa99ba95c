"""File locks between processes. The kernel drops them when their holder dies, so none outlives its process."""

import contextlib
import fcntl
import os
import time
import weakref
from collections.abc import Callable
from pathlib import Path

_POLL_S = 0.05


class Lock:
    """An flock, held until `release` or until no one refers to the object any more."""

    def __init__(self, descriptor: int) -> None:
        self._finalizer = weakref.finalize(self, os.close, descriptor)

    def release(self) -> None:
        """Gives it up; a second time does nothing."""
        self._finalizer()


def try_lock(file: Path, *, exclusive: bool) -> Lock | None:
    """A lock on `file` (made where absent), or None if another holder is against it. Only who holds it
    exclusively may remove the file.

    Two locks of one process stand against each other like those of two.
    """
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        lock = Lock(descriptor)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.release()
            return None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), file.stat()):
                return lock
        lock.release()  # the file was removed between the two calls: its lock protects nothing


def wait_lock(file: Path, *, exclusive: bool, check_cancelled: Callable[[], None]) -> Lock:
    """`try_lock` until it succeeds; `check_cancelled` is called between attempts and may raise."""
    while True:
        lock = try_lock(file, exclusive=exclusive)
        if lock is not None:
            return lock
        check_cancelled()
        time.sleep(_POLL_S)
