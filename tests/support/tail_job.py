"""What a worker does for a job of kind `tail`: a comparison, and a count over its values."""

import pyarrow.compute as pc
import pyarrow.parquet as pq

from app.contracts.report import Report
from app.contracts.request import JobRequest
from app.kinds.compare.request import CompareRequest
from tests.support.tail_kind import TailReport, TailRequest
from workers.diagnosis.compare.job import TOKENS_FILE, compare
from workers.engine.room import EngineRoom
from workers.process.handler import JobContext


def tail(request: TailRequest, context: JobContext, room: EngineRoom) -> TailReport:
    """Raises what a comparison raises."""
    plain = {name: getattr(request, name) for name in JobRequest.model_fields if name != "kind"}
    found = compare(CompareRequest(kind="compare", **plain), context, room)
    context.progress("tail", 0, 1)
    above = pc.greater(pq.read_table(context.output / TOKENS_FILE)["kl"], request.above)
    shared = {name: getattr(found, name) for name in Report.model_fields if name not in {"schema_", "kind", "request"}}
    return TailReport(**shared, request=request.model_dump(mode="json"), share=pc.mean(above).as_py())
