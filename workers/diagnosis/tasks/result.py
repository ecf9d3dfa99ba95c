"""From two models' answers to what a report says of a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from app.contracts.report import Mean
from app.contracts.task import Chance, HarnessTask
from app.kinds.tasks.report import (
    AnyTaskResult,
    Detectable,
    Equivalence,
    FlipCounts,
    Flipped,
    FlipPrediction,
    HarnessMetricResult,
    HarnessTaskResult,
    McNemar,
    MetricResult,
    NotFinite,
    Outcome,
    Share,
    TaskResult,
)
from app.kinds.tasks.request import TasksRequest
from app.models.tasks.items import Item
from app.models.tasks.power import ASSUMED_FLIP_RATES, LEVEL, level_of
from app.models.tasks.reading import format_of
from workers.analysis.paired import mcnemar, score
from workers.analysis.paired.pairs import Pairs, wilson
from workers.answering.guessing import chance_of
from workers.answering.pair import Answered
from workers.distributions.intervals import Clusters
from workers.distributions.significance import holm
from workers.measuring.summary import as_mean

_SHOWN_CHARACTERS: Final = 600


@dataclass(frozen=True)
class Planned:
    """What was known of a task before it was run: the prediction of its flip rate, and the fingerprint of all items
    that it draws from."""

    prediction: FlipPrediction
    source: str

    @property
    def rate(self) -> tuple[float, bool]:
        """The flip rate to plan with, and whether runs of this task or like it told it."""
        if self.prediction.status == "seen" and self.prediction.rate:
            return self.prediction.rate, True
        return ASSUMED_FLIP_RATES[0], False


def results(answered: Sequence[Answered], planned: Sequence[Planned], request: TasksRequest) -> list[AnyTaskResult]:
    """One result a task; p-values are adjusted over all that were asked for. One that could not be scored shows
    nothing, and makes it no easier for the others, as which these are depends on what the models said."""
    pairs = [
        Pairs.of(one.reference[one.metric].right, one.candidate[one.metric].right, one.passages) for one in answered
    ]
    asked = max(len(request.tasks), len(answered))
    nothing = [1.0] * (asked - len(answered))
    tests = [mcnemar.exact(one) for one in pairs] + nothing
    within = [score.equivalence(one, request.margin) for one in pairs] + nothing
    tests_holm, within_holm = holm(tests), holm(within)
    found: list[AnyTaskResult] = []
    for index, (one, pair) in enumerate(zip(answered, pairs, strict=True)):
        guessed = chance_of(one, pair)
        equivalence = Equivalence(
            margin=request.margin,
            p=within[index],
            p_holm=within_holm[index],
            ci90=score.interval(pair, level=0.9),
            equivalent=within_holm[index] < LEVEL,
        )
        test = McNemar(p=tests[index], p_holm=tests_holm[index])
        outcome = outcome_of(pair, test, equivalence, guessed)
        difference = Share(mean=pair.difference, ci=score.interval(pair))
        told: dict[str, Any] = {
            "name": one.task.title,
            "items": pair.items,
            "passages": None if pair.clusters is None else len(pair.clusters),
            "fingerprint": one.fingerprint,
            "source_fingerprint": planned[index].source,
            "metric": one.metric,
            "reference": _share(pair.both_right + pair.harmful, pair.items),
            "candidate": _share(pair.both_right + pair.helpful, pair.items),
            "difference": difference,
            "flips": _flips(pair),
            "examples": _examples(one, request),
            "mcnemar": test,
            "equivalence": equivalence,
            "detectable": _detectable(pair, planned[index], level_of(asked)),
            "chance": guessed,
            "kl": _kl(one, request.seed),
            "prediction": planned[index].prediction,
            "outcome": outcome,
            "shortened": one.shortened,
            "not_finite_reference": _not_finite(one, 0),
            "not_finite_candidate": _not_finite(one, 1),
        }
        if one.harness is not None:
            theirs = tuple(HarnessMetricResult(**metric) for metric in _metrics(one))
            found.append(HarnessTaskResult(**told, harness=one.harness, metrics=theirs))
        else:
            assert not isinstance(one.task, HarnessTask)  # noqa: S101 - those have a definition
            ours = tuple(MetricResult(**metric) for metric in _metrics(one))
            found.append(TaskResult(**told, format=format_of(one.task), metrics=ours))
    return found


def outcome_of(pair: Pairs, test: McNemar, equivalence: Equivalence, guessed: Chance) -> Outcome:
    """At chance where even the reference guesses. Else a difference where McNemar shows one, equivalence where the
    two one-sided tests do, both over all tasks of the job; else nothing is shown."""
    if guessed.reference_at_chance:
        return "at_chance"
    if test.p_holm < LEVEL:
        return "worse" if pair.harmful > pair.helpful else "better"
    return "equivalent" if equivalence.equivalent else "inconclusive"


def _share(right: int, items: int) -> Share:
    return Share(mean=right / items, ci=wilson(right, items))


def _metrics(one: Answered) -> list[dict[str, Any]]:
    """The fields of each metric by which both models' answers are right or wrong."""
    found = []
    for metric in one.reference:
        if metric not in one.candidate:  # one model's answers were scored in between by it
            continue
        pair = Pairs.of(one.reference[metric].right, one.candidate[metric].right, one.passages)
        found.append(
            {
                "metric": metric,
                "reference": pair.reference,
                "candidate": pair.candidate,
                "harmful": pair.harmful,
                "helpful": pair.helpful,
                "difference": Share(mean=pair.difference, ci=score.interval(pair)),
            }
        )
    return found


def _flips(pair: Pairs) -> FlipCounts:
    return FlipCounts(
        both_right=pair.both_right,
        both_wrong=pair.both_wrong,
        harmful=pair.harmful,
        helpful=pair.helpful,
        rate=_share(pair.flips, pair.items),
    )


def _detectable(pair: Pairs, planned: Planned, level: float) -> Detectable:
    rate, told = planned.rate
    found, independent = pair.flips / pair.items, int(pair.items / pair.design)
    return Detectable(
        level=level,
        difference=mcnemar.detectable(pair.items, rate, level=level),
        flip_rate=rate,
        source="predicted" if told else "assumed",
        at_measured_rate=mcnemar.detectable(independent, found, level=level) if pair.flips else None,
    )


def _kl(one: Answered, seed: int) -> Mean | None:
    if one.likelihoods is None:
        return None
    finite = np.isfinite(one.likelihoods.kl)
    if not finite.any():
        return Mean(mean=None, ci=None)
    kl = np.maximum(one.likelihoods.kl[finite], 0.0)
    return as_mean(Clusters(one.likelihoods.item[finite], "documents").means([kl], seed=seed)[0], (0.0, np.inf))


def _not_finite(one: Answered, side: int) -> NotFinite | None:
    """Of the reference (0) or the candidate (1)."""
    found = one.likelihoods
    if found is None:
        return None
    items = sum(not np.isfinite(values).all() for values in (found.reference, found.candidate)[side])
    return NotFinite(positions=found.broken[side], items=items)


def stores(one: Answered, request: TasksRequest) -> bool:
    """Whether the report may hold text of the items: what the request says; unsaid, of shipped ones."""
    return one.task.source == "shipped" if request.store_text is None else request.store_text


def _examples(one: Answered, request: TasksRequest) -> tuple[Flipped, ...]:
    """The first flips of either direction, in the order of the file."""
    first, second = one.reference[one.metric], one.candidate[one.metric]
    stored = stores(one, request)
    found: list[Flipped] = []
    for harmful in (True, False):
        where = np.flatnonzero((first.right & ~second.right) if harmful else (~first.right & second.right))
        for index in map(int, where[: request.shown]):
            item = one.items[index]
            found.append(
                Flipped(
                    item=item.id,
                    direction="harmful" if harmful else "helpful",
                    prompt=_shown(item.prompt) if stored else None,
                    answer=_shown(_right(item)) if stored else None,
                    reference=_shown(first.said[index]) if stored else None,
                    candidate=_shown(second.said[index]) if stored else None,
                )
            )
    return tuple(found)


def _right(item: Item) -> str | None:
    return item.choices[item.gold] if item.choices else item.target or item.solution or None


def _shown(text: str | None) -> str | None:
    """The end of a long text: that is where the question is."""
    if text is None:
        return None
    return text if len(text) <= _SHOWN_CHARACTERS else f"…{text[-_SHOWN_CHARACTERS:]}"
