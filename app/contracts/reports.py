"""Reports of every kind of job."""

from typing import Final

from app.contracts.calibration_report import CalibrateReport
from app.contracts.report import CompareReport

AnyReport = CompareReport | CalibrateReport
# By the report's `kind`.
REPORTS: Final[dict[str, type[CompareReport] | type[CalibrateReport]]] = {
    "compare": CompareReport,
    "calibrate": CalibrateReport,
}
