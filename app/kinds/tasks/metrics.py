"""Metrics of jobs of kind `tasks`."""

from app.contracts.metric import COMPARISON, Metric

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
