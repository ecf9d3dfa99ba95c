"""The real handlers of compare and sweep jobs, halted in the middle until they are told to go on.

So a job has not ended before a test has done with it what it wants, however fast the machine is.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from app.kinds.compare import KIND as COMPARE
from app.kinds.compare.request import CompareRequest
from app.kinds.sweep import KIND as SWEEP
from app.kinds.sweep.request import SweepRequest
from tests.support.handlers import told_to_go
from workers.process.context import PROGRESS_INTERVAL_S
from workers.process.handler import Handlers, JobContext

if TYPE_CHECKING:
    from app.kinds.compare.report import CompareReport
    from app.kinds.sweep.report import SweepReport
    from workers.engine.room import EngineRoom

WINDOWS: Final = 150  # of the candidate, after which it halts
POINTS: Final = 2  # of a sweep, likewise


class _Halting:
    """A context that holds up whoever tells it of so much progress. That much has been kept in the scratch folder."""

    def __init__(self, context: JobContext, phase: str, most: int) -> None:
        self._context, self._phase, self._most = context, phase, most

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def progress(self, phase: str, done: int, total: int) -> None:
        """Tells it, and halts."""
        self._context.progress(phase, done, total)
        if phase != self._phase or not self._most <= done < total or told_to_go(self._context):
            return
        time.sleep(1.5 * PROGRESS_INTERVAL_S)  # else it may not be told
        self._context.progress(phase, done, total)
        while not told_to_go(self._context):
            self._context.check_cancelled()
            time.sleep(0.02)


def compare(request: CompareRequest, context: JobContext, room: EngineRoom) -> CompareReport:
    """`workers.diagnosis.compare.job.compare`, halting."""
    from workers.diagnosis.compare.job import compare as whole

    return whole(request, cast(JobContext, _Halting(context, "candidate", WINDOWS)), room)


def sweep(request: SweepRequest, context: JobContext, room: EngineRoom) -> SweepReport:
    """`workers.diagnosis.sweep.job.sweep`, halting. Points are told in hundredths."""
    from workers.diagnosis.sweep.job import sweep as whole_sweep

    return whole_sweep(request, cast(JobContext, _Halting(context, "points", 100 * POINTS)), room)


HANDLERS = Handlers(
    kinds={
        "compare": replace(COMPARE, handler="tests.support.halting:compare"),
        "sweep": replace(SWEEP, handler="tests.support.halting:sweep"),
    },
    room="workers.engine.room:EngineRoom",
    preload=("workers.diagnosis.compare.job",),
)
