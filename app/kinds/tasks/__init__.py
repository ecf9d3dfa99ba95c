"""Jobs of kind `tasks`."""

from app.kinds.kind import Kind
from app.kinds.tasks.report import TasksReport
from app.kinds.tasks.request import TasksRequest

KIND = Kind(
    name="tasks",
    request=TasksRequest,
    report=TasksReport,
    check=f"{__name__}.plan:check",
    cost=f"{__name__}.plan:cost",
)
