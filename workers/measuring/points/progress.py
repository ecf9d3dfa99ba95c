"""Progress of many points as one row of steps: whatever is done for a point counts as a part of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from app.settings import Settings
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

    @property
    def job_id(self) -> str:
        """As the context's."""
        return self._context.job_id

    @property
    def attempt(self) -> int:
        """As the context's."""
        return self._context.attempt

    @property
    def settings(self) -> Settings:
        """As the context's."""
        return self._context.settings

    @property
    def scratch(self) -> Path:
        """As the context's."""
        return self._context.scratch

    @property
    def output(self) -> Path:
        """As the context's."""
        return self._context.output

    def finished(self, points: int) -> None:
        """Says that so many more points are there."""
        self._done = min(self._total, self._done + points)
        self._context.progress(self._phase, self._done * _PARTS, self._total * _PARTS)

    def progress(self, phase: str, done: int, total: int) -> None:
        """A step of the point that is being measured: scoring moves it on, its surgery does not."""
        part = _PARTS * done // total if phase == self._phase and total else 0
        most = self._total * _PARTS
        self._context.progress(self._phase, min(most, self._done * _PARTS + min(part, _PARTS - 1)), most)

    def log(self, message: str) -> None:
        """As the context's."""
        self._context.log(message)

    def check_cancelled(self) -> None:
        """As the context's."""
        self._context.check_cancelled()

    def observe(self, name: str, value: float, **labels: str) -> None:
        """As the context's."""
        self._context.observe(name, value, **labels)

    def observe_many(self, name: str, values: Iterable[float], **labels: str) -> None:
        """As the context's."""
        self._context.observe_many(name, values, **labels)
