"""What a worker does for a job of kind `tail`: a comparison, and a count over its values."""

from tests.support.tail_kind import TailReport, TailRequest
from workers.engine.room import EngineRoom
from workers.measuring.pair import compared
from workers.process.handler import JobContext


def tail(request: TailRequest, context: JobContext, room: EngineRoom) -> TailReport:
    found = compared(request, context, room)
    context.progress("tail", 0, 1)
    report = found.reported(TailReport, share=float((found.values.kl > request.above).mean()))
    context.observe("tail_ratio", report.share, **report.labels())
    return report
