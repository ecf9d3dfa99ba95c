"""What decides: the metric of right and wrong, and how often a guess is right by it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from app.contracts.task import HarnessTask
from app.models.nearest import suggestion
from app.models.tasks.items import Item
from workers.answering.harness.definition import Refusal

# Other metrics of the definitions, f1 of some, grade all answers together.
RIGHT_OR_WRONG: Final = ("acc", "acc_norm", "exact_match")


def deciding_metric(built: Any, task: HarnessTask, refusal: Refusal) -> str:
    """What decides, as the harness writes it. Raises INVALID_REQUEST if the definition has no such one."""
    metrics = [name for name in built.aggregation() if name in RIGHT_OR_WRONG]
    if task.metric is not None and task.metric not in metrics:
        raise refusal(f"it has no metric {task.metric} of right and wrong", suggestion(task.metric, metrics), "metric")
    filters = [str(one["name"]) for one in built.config.filter_list or ()]
    if task.filter is not None and task.filter not in filters:
        raise refusal(f"it has no filter {task.filter}", suggestion(task.filter, filters), "filter")
    chosen = task.filter or (filters[0] if filters else None)
    metric = task.metric or metrics[0]
    return metric if chosen is None or chosen == "none" else f"{metric},{chosen}"


def guess_of(items: Sequence[Item]) -> float:
    """The share of generated answers that are right if the commonest right answer is always given; 0 if each is right
    once, and for choices, where it is not used."""
    if items[0].choices:
        return 0.0
    common = Counter(item.target.strip().casefold() for item in items).most_common(1)[0][1]
    return common / len(items) if common > 1 else 0.0
