"""Jobs of kind `compare`."""

from app.kinds.compare.report import CompareReport
from app.kinds.compare.request import CompareRequest
from app.kinds.kind import Kind

KIND = Kind(
    name="compare",
    request=CompareRequest,
    report=CompareReport,
    check=f"{__name__}.plan:check",
    cost=f"{__name__}.plan:cost",
)
