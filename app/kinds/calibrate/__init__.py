"""Jobs of kind `calibrate`."""

from app.kinds.calibrate.report import CalibrateReport
from app.kinds.calibrate.request import CalibrateRequest
from app.kinds.kind import Kind

KIND = Kind(
    name="calibrate",
    request=CalibrateRequest,
    report=CalibrateReport,
    cost=f"{__name__}.plan:cost",
)
