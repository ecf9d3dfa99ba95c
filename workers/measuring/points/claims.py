"""Who measures which point: a lock file a point, so that two workers never measure the same one.

The lock is the kernel's and goes with its holder, however that ends. No lease has to be renewed, no clock is compared,
and the points of a killed worker are free at once. It needs what the job's folder needs anyway: that workers which
share a queue share HEMOSTAT_HOME.
"""

from __future__ import annotations

from pathlib import Path

from app.locks import Lock, try_lock


class Claims:
    """Claims on the points of one job, below a folder that its workers share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, key: str) -> Lock | None:
        """The right to measure a point until it is released; None while somebody else has it."""
        return try_lock(self._folder / key, exclusive=True)

    def taken(self, key: str) -> bool:
        """Whether somebody has it at this moment."""
        file = self._folder / key
        if not file.exists():
            return False
        lock = try_lock(file, exclusive=False)
        if lock is None:
            return True
        lock.release()
        return False
