"""Jobs of kind `mitigate`."""

from app.kinds.kind import Kind
from app.kinds.mitigate.report import MitigateReport
from app.kinds.mitigate.request import MitigateRequest

KIND = Kind(
    name="mitigate",
    request=MitigateRequest,
    report=MitigateReport,
    check=f"{__name__}.plan:check",
    cost=f"{__name__}.plan:cost",
)
