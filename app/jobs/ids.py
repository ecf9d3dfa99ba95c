"""Job ids: `diag_` and a ULID, so that ids sort by the time they were made."""

import os
import re
import threading
import time
from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
PATTERN: Final = re.compile(r"diag_[0-7][0-9A-HJKMNP-TV-Z]{25}")

_lock = threading.Lock()
_last = 0


def new_job_id() -> str:
    """An id that is greater than every one that this process made before."""
    return "diag_" + new_ulid()


def new_ulid() -> str:
    """48 bits of milliseconds, 80 random bits; within one process every id is greater than the one before."""
    global _last  # noqa: PLW0603 - the order within a millisecond is the process's own state
    value = time.time_ns() // 1_000_000 << 80 | int.from_bytes(os.urandom(10), "big")
    with _lock:
        value = max(value, _last + 1)
        _last = value
    return "".join(ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def is_job_id(text: str) -> bool:
    """Whether `text` could be a job's id. What could not never reaches Redis or a path."""
    return PATTERN.fullmatch(text) is not None
