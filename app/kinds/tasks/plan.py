"""What of a tasks job can be refused before it is queued, and what it costs."""

from app.kinds.estimates import Cost
from app.kinds.preflight import Checked
from app.kinds.tasks.request import TasksRequest
from app.models.tasks.checks import GENERATED_PER_SECOND, check_answers, check_tasks, tasks_cost


def check(request: TasksRequest, checked: Checked) -> None:
    """Raises `HemostatError` for tasks that cannot be read or answered."""
    check_tasks(request.tasks, checked.settings, seed=request.seed)
    check_answers(request.tasks, checked.context)


def cost(request: TasksRequest, cost: Cost) -> None:
    """Adds the answers."""
    asked, drawn, told = tasks_cost(request.tasks, cost.settings, seed=request.seed)
    cost.add_answers(asked, drawn, GENERATED_PER_SECOND)
    cost.assumptions += told
