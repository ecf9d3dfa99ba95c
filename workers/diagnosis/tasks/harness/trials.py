"""Answers that no model gave: they tell what is asked, and show before any pass that a definition takes the rows and
that its scores are right or wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.contracts.task import HarnessTask
from app.models.tasks.harness import HarnessRows
from app.models.tasks.items import Item
from workers.diagnosis.tasks.harness.building import told
from workers.diagnosis.tasks.harness.definition import Refusal
from workers.diagnosis.tasks.harness.evaluation import OTHERWISE, Sample, run, target_of
from workers.process.handler import JobCancelled


def trial_of(
    built: Any,
    task: HarnessTask,
    rows: HarnessRows,
    refusal: Refusal,
    seed: int,
    answers: Sequence[object] | None = None,
) -> list[Sample]:
    """One evaluation of answers that no model gave; None are nothing of choices, and text that is more than the right
    answer. Raises TASK_INVALID where it cannot be run."""
    try:
        return run(built, answers, seed=seed)
    except JobCancelled:
        raise
    except Exception as error:
        raise refusal(
            f"what it asks about the items of {task.path}, or how it scores answers, cannot be run: "
            f"{told(error, rows)}",
            "the file may lack a field, a number of solved examples be too large, or the task need a package that is "
            "not installed",
            "path",
        ) from error


def more_trials(
    built: Any,
    items: Sequence[Item],
    samples: Sequence[Sample],
    task: HarnessTask,
    rows: HarnessRows,
    refusal: Refusal,
    seed: int,
) -> list[list[Sample]]:
    """Of generated answers: the right one alone, the last of several right ones, to which a grade over all of them may
    give a number in between, and words alone."""
    if items[0].choices:
        return []
    last = [target_of(built, sample["doc"], -1) for sample in samples]
    answers = ([item.target for item in items], last, [OTHERWISE] * len(items))
    return [trial_of(built, task, rows, refusal, seed, given) for given in answers]
