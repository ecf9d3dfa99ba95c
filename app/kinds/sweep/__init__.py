"""Jobs of kind `sweep`."""

from app.kinds.kind import Kind
from app.kinds.sweep.report import SweepReport
from app.kinds.sweep.request import SweepRequest

KIND = Kind(
    name="sweep",
    request=SweepRequest,
    report=SweepReport,
    check=f"{__name__}.plan:check",
    cost=f"{__name__}.plan:cost",
)
