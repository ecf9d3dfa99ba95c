"""Reports of every kind of job."""

from typing import Annotated, Final

from pydantic import Field, TypeAdapter

from app.contracts.calibration_report import CalibrateReport
from app.contracts.mitigate_report import MitigateReport
from app.contracts.report import CompareReport

AnyReport = CompareReport | CalibrateReport | MitigateReport
REPORT: Final[TypeAdapter[AnyReport]] = TypeAdapter(Annotated[AnyReport, Field(discriminator="kind")])
# By the report's `kind`.
REPORTS: Final[dict[str, type[CompareReport] | type[CalibrateReport] | type[MitigateReport]]] = {
    "compare": CompareReport,
    "calibrate": CalibrateReport,
    "mitigate": MitigateReport,
}
