"""Progress of many points as one row of steps: whatever is done for a point counts as a part of it."""

from __future__ import annotations

from typing import Any, cast

from workers.process.handler import JobContext

# What a point's steps are counted in: its surgery is one part of the windows' hundred.
_PARTS = 100


class Counted:
    """A job's context whose progress speaks of points: `done` of `total` points, in hundredths while one is measured.

    `finished(n)` says that n more points are there. Everything else goes to the context itself.
    """

    def __init__(self, context: JobContext, *, total: int, phase: str) -> None:
        self._context, self._phase = context, phase
        self._total, self._done = total, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    @property
    def as_context(self) -> JobContext:
        """Itself, for those who take a context."""
        return cast(JobContext, self)

    def finished(self, points: int) -> None:
        """Says that so many more points are there."""
        self._done = min(self._total, self._done + points)
        self._context.progress(self._phase, self._done * _PARTS, self._total * _PARTS)

    def progress(self, phase: str, done: int, total: int) -> None:
        """A step of the point that is being measured: scoring moves it on, its surgery does not."""
        part = _PARTS * done // total if phase == self._phase and total else 0
        most = self._total * _PARTS
        self._context.progress(self._phase, min(most, self._done * _PARTS + min(part, _PARTS - 1)), most)
