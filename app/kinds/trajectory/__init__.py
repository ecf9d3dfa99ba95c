"""Jobs of kind `trajectory`."""

from app.kinds.kind import Kind
from app.kinds.trajectory.report import TrajectoryReport
from app.kinds.trajectory.request import TrajectoryRequest

KIND = Kind(
    name="trajectory",
    request=TrajectoryRequest,
    report=TrajectoryReport,
    check=f"{__name__}.plan:check",
    cost=f"{__name__}.plan:cost",
)
