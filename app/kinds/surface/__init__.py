"""Jobs of kind `surface`."""

from app.kinds.kind import Kind
from app.kinds.surface.report import SurfaceReport
from app.kinds.surface.request import SurfaceRequest

KIND = Kind(
    name="surface",
    request=SurfaceRequest,
    report=SurfaceReport,
    check=f"{__name__}.plan:check",
    cost=f"{__name__}.plan:cost",
)
