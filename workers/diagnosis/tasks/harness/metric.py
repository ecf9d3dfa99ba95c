"""What decides: the metric of right and wrong, and how often a guess is right by it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from app.contracts.task import HarnessTask
from app.models.nearest import suggestion
from app.models.tasks.items import Item
from workers.diagnosis.tasks.harness.definition import UNANSWERED, Refusal, harness
from workers.diagnosis.tasks.harness.evaluation import Sample, Scored

# Metrics that grade an answer; the trial finds most of the others.
_GRADED: Final = re.compile(r"f1|rouge|bleu|chrf|bertscore|similarity|recall|precision")


def deciding_metric(built: Any, task: HarnessTask, refusal: Refusal) -> str:
    """What decides, as the harness writes it. Raises INVALID_REQUEST where the definition has no such one."""
    mean = harness("api.metrics").mean
    averaged = [name for name, how in built.aggregation().items() if how is mean]
    if built.OUTPUT_TYPE == "multiple_choice":
        averaged = [name for name in averaged if name not in UNANSWERED]
    averaged = [name for name in averaged if not _GRADED.search(name)]
    if task.metric is not None and _GRADED.search(task.metric):
        raise refusal(
            f"{task.metric} gives other numbers than right and wrong", suggestion(task.metric, averaged), "metric"
        )
    if not averaged:
        raise refusal(
            f"none of its metrics ({', '.join(built.aggregation())}) is an average of right and wrong answers",
            "choose a task that is scored by accuracy or exact match",
        )
    if task.metric is not None and task.metric not in averaged:
        raise refusal(f"it has no metric {task.metric} of right and wrong", suggestion(task.metric, averaged), "metric")
    filters = [str(one["name"]) for one in built.config.filter_list or ()]
    if task.filter is not None and task.filter not in filters:
        raise refusal(f"it has no filter {task.filter}", suggestion(task.filter, filters), "filter")
    chosen = task.filter or (filters[0] if filters else None)
    metric = task.metric or averaged[0]
    return metric if chosen is None or chosen == "none" else f"{metric},{chosen}"


def check_scored(trial: Scored, metric: str, refusal: Refusal) -> None:
    """Raises INVALID_REQUEST where what decides is not 0 or 1."""
    if metric not in trial.right:
        raise refusal(
            f"{metric} gives other numbers than right and wrong",
            f"decide by another metric; {suggestion(metric, trial.right)}"
            if trial.right
            else "choose a task that is scored by accuracy or exact match",
            "metric",
        )


def guess_of(built: Any, items: Sequence[Item], samples: Sequence[Sample]) -> float:
    """Of generated answers: the larger of one in so many choices, where the definition has them, and of the share of
    the commonest right answer, if it is right more than once. 0 for multiple choice, where it is not used."""
    if items[0].choices:
        return 0.0
    common = Counter(item.target.strip().casefold() for item in items).most_common(1)[0][1]
    share = common / len(items) if common > 1 else 0.0
    if built.config.doc_to_choice is None:
        return share
    return max(share, 1 / len(built.doc_to_choice(samples[0]["doc"])))
