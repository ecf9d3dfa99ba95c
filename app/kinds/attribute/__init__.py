"""Jobs of kind `attribute`."""

from app.kinds.attribute.report import AttributeReport
from app.kinds.attribute.request import AttributeRequest
from app.kinds.kind import Kind

KIND = Kind(
    name="attribute",
    request=AttributeRequest,
    report=AttributeReport,
    check=f"{__name__}.plan:check",
    cost=f"{__name__}.plan:cost",
)
