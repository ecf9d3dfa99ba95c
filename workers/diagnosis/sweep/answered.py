"""From both models' answers at a setting to the row of a report: accuracies, what is lost, and what decides."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import JsonValue

from app.contracts.report import Mean
from app.contracts.task import HarnessTask
from app.kinds.sweep.lossless import MOST_LOST, AnsweredSetting, AnsweredTask
from app.models.tasks.reading import format_of, metric_of
from workers.analysis.paired.degradation import Loss, average, of_task
from workers.analysis.paired.pairs import Pairs
from workers.answering.guessing import chance_of
from workers.answering.pair import Answered


def answered_setting(value: JsonValue, answered: Sequence[Answered]) -> AnsweredSetting:
    """The row of a setting. Tasks on which the reference is at chance have no loss, and no part in the mean."""
    tasks, losses = list[AnsweredTask](), list[Loss]()
    for one in answered:
        assert not isinstance(one.task, HarnessTask)  # noqa: S101 - a sweep asks none
        pairs = Pairs.of(one.reference[one.metric].right, one.candidate[one.metric].right)
        loss = None if chance_of(one, pairs).reference_at_chance else of_task(pairs)
        if loss is not None:
            losses.append(loss)
        tasks.append(
            AnsweredTask(
                name=one.task.title,
                format=format_of(one.task),
                metric=metric_of(one.task),
                items=pairs.items,
                reference=pairs.reference,
                candidate=pairs.candidate,
                harmful=pairs.harmful,
                helpful=pairs.helpful,
                loss=None if loss is None else Mean(mean=loss.mean, ci=loss.ci),
                shortened=one.shortened,
            )
        )
    lost = average(losses) if losses else None
    if lost is None:
        return AnsweredSetting(value=value, tasks=tuple(tasks), degradation=None, within=None, decided=False)
    within = lost.mean <= MOST_LOST
    return AnsweredSetting(
        value=value,
        tasks=tuple(tasks),
        degradation=Mean(mean=lost.mean, ci=lost.ci),
        within=within,
        decided=lost.ci[1] <= MOST_LOST if within else lost.ci[0] > MOST_LOST,
    )
