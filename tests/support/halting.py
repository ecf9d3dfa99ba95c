"""The real handler of compare jobs, halted in the middle of the candidate until it is told to go on.

So a job has not ended before a test has done with it what it wants, however fast the machine is.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, cast

from app.contracts.requests.compare import CompareRequest
from tests.support.handlers import told_to_go
from workers.diagnosis.compare import compare as whole
from workers.diagnosis.context import JobContext
from workers.diagnosis.registry import Handlers, Kind
from workers.process.context import PROGRESS_INTERVAL_S

if TYPE_CHECKING:
    from app.contracts.report import CompareReport
    from workers.engine.room import EngineRoom

WINDOWS: Final = 150  # after which it halts


class _Halting:
    """A context that holds up whoever tells it of so much progress. That much has been kept in the scratch folder."""

    def __init__(self, context: JobContext) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def progress(self, phase: str, done: int, total: int) -> None:
        """Tells it, and halts."""
        self._context.progress(phase, done, total)
        if phase != "candidate" or not WINDOWS <= done < total or told_to_go(self._context):
            return
        time.sleep(1.5 * PROGRESS_INTERVAL_S)  # else it may not be told
        self._context.progress(phase, done, total)
        while not told_to_go(self._context):
            self._context.check_cancelled()
            time.sleep(0.02)


def compare(request: CompareRequest, context: JobContext, room: EngineRoom) -> CompareReport:
    """`workers.diagnosis.compare.compare`, halting."""
    return whole(request, cast(JobContext, _Halting(context)), room)


HANDLERS = Handlers(
    kinds={"compare": Kind(CompareRequest, "tests.support.halting:compare")},
    room="workers.engine.room:EngineRoom",
    preload=("tests.support.halting",),
)
