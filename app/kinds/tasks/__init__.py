"""Jobs of kind `tasks`."""

from app.contracts.metric import COMPARISON, Metric
from app.kinds.kind import Kind
from app.kinds.tasks.notices import TasksNotice
from app.kinds.tasks.report import TasksReport
from app.kinds.tasks.request import TasksRequest
from app.kinds.tasks.rule import FailOn

EXAMPLE = {
    "kind": "tasks",
    "reference": {"model": "smollm2-135m"},
    "candidate": {"model": "smollm2-135m", "recipe": [{"type": "quantize.rtn", "bits": 4}]},
    "tasks": [
        {"source": "shipped"},
        {"source": "file", "format": "hellaswag", "path": "tasks/hellaswag_val.jsonl", "items": 1000},
    ],
    "margin": 0.02,
}
METRICS = (
    Metric("task_accuracy_ratio", "gauge", "Accuracy of the candidate on a task.", (*COMPARISON, "task")),
    Metric(
        "task_accuracy_difference",
        "gauge",
        "Accuracy of the candidate minus that of the reference on the same items.",
        (*COMPARISON, "task"),
    ),
    Metric(
        "task_flip_ratio",
        "gauge",
        "Share of a task's items that one of the two answers rightly.",
        (*COMPARISON, "task"),
    ),
)
KIND = Kind(
    request=TasksRequest,
    report=TasksReport,
    question="Which answers flip, and is the candidate equivalent?",
    example=EXAMPLE,
    handler="workers.diagnosis.tasks.job:tasks",
    check=f"{__name__}.plan:check",
    cost=f"{__name__}.plan:cost",
    view=f"{__name__}.view:blocks",
    answer=f"{__name__}.view:heading",
    class_of="over the text",
    rules=FailOn,
    judge=f"{__name__}.rule:judge",
    metrics=METRICS,
    notices=TasksNotice,
)
