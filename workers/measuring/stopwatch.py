"""Seconds of each phase of a job."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from workers.process.handler import JobContext


class Stopwatch:
    """`with watch.phase(name):` adds the block's seconds to that phase, and exports them."""

    def __init__(self, context: JobContext) -> None:
        self.seconds: dict[str, float] = {}
        self._context = context

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times a block. A block that raises is not exported: it tells nothing of how long the phase takes."""
        start = time.perf_counter()
        yield
        spent = time.perf_counter() - start
        self.seconds[name] = round(self.seconds.get(name, 0.0) + spent, 3)
        self._context.observe("phase_seconds", spent, phase=name)
