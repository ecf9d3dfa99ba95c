"""Reports of every kind of job."""

from typing import Annotated, Final

from pydantic import Field, TypeAdapter

from app.contracts.attribute_report import AttributeReport
from app.contracts.calibration_report import CalibrateReport
from app.contracts.mitigate_report import MitigateReport
from app.contracts.report import CompareReport
from app.contracts.surface_report import SurfaceReport
from app.contracts.sweep_report import SweepReport
from app.contracts.tasks_report import TasksReport
from app.contracts.trajectory_report import TrajectoryReport

AnyReport = (
    CompareReport
    | CalibrateReport
    | MitigateReport
    | SweepReport
    | SurfaceReport
    | TasksReport
    | TrajectoryReport
    | AttributeReport
)
REPORT: Final[TypeAdapter[AnyReport]] = TypeAdapter(Annotated[AnyReport, Field(discriminator="kind")])
# By the report's `kind`.
REPORTS: Final[
    dict[
        str,
        type[CompareReport]
        | type[AttributeReport]
        | type[CalibrateReport]
        | type[MitigateReport]
        | type[SweepReport]
        | type[SurfaceReport]
        | type[TasksReport]
        | type[TrajectoryReport],
    ]
] = {
    "compare": CompareReport,
    "attribute": AttributeReport,
    "calibrate": CalibrateReport,
    "mitigate": MitigateReport,
    "sweep": SweepReport,
    "surface": SurfaceReport,
    "tasks": TasksReport,
    "trajectory": TrajectoryReport,
}
