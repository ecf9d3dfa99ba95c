"""What is said of one task, in words, and what it could show against an enumeration of every outcome."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import stats

from app.contracts.task import FileTask
from app.kinds.tasks.report import FlipPrediction
from app.kinds.tasks.request import TasksRequest
from app.models.tasks.items import Item
from workers.answering.answers import Answers
from workers.answering.pair import Answered
from workers.diagnosis.tasks.result import Planned, results

TOLD = FlipPrediction(status="seen", rate=0.2, interval=(0.1, 0.3), sentence="")


def request(**more):
    return TasksRequest.model_validate(
        {"kind": "tasks", "reference": {"model": "a"}, "candidate": {"model": "b"}} | more
    )


def result(one, **more):
    (found,) = results([one], [Planned(TOLD, "all")], request(**more))
    return found


def answered(name, reference, candidate):
    items = [Item(f"{number}", "?", target="1") for number in range(len(reference))]

    def side(right):
        return Answers(tuple("1" if one else "0" for one in right), np.asarray(right))

    task = FileTask(source="file", format="gsm8k", path="a.jsonl", name=name)
    sides = [
        {metric: side(right) for metric in ("exact_match_flexible", "exact_match_strict")}
        for right in (reference, candidate)
    ]
    return Answered(task, items, name, sides[0], sides[1], "exact_match_flexible", shortened=0)


@cache
def p_values(flips):
    """Of the binomial test, by number of harmful flips."""
    return np.asarray([stats.binomtest(harmful, flips).pvalue for harmful in range(flips + 1)])


def shown(items, rate, difference, level):
    """How often McNemar's test shows it, over every number of harmful and helpful flips."""
    total = 0.0
    for flips in range(1, items + 1):
        harmful = stats.binom.pmf(np.arange(flips + 1), flips, (rate + difference) / (2 * rate))
        total += stats.binom.pmf(flips, items, rate) * harmful[p_values(flips) <= level].sum()
    return total


@pytest.mark.parametrize("tasks", [1, 10])
def test_the_detectable_difference_is_of_the_level_that_each_task_is_decided_at(tasks):
    right = [True] * 100
    flipped = [False] * 10 + [True] * 90
    found = results(
        [answered(f"t{number}", right, flipped) for number in range(tasks)],
        [Planned(TOLD, "all")] * tasks,
        request(margin=0.02),
    )
    level, detectable = 0.05 / tasks, found[0].detectable
    assert [result.detectable for result in found] == [detectable] * tasks
    assert detectable.level == pytest.approx(level)
    assert detectable.difference is not None
    assert shown(100, 0.2, detectable.difference, level) == pytest.approx(0.8, abs=0.005)
    if tasks == 1:
        assert detectable.at_measured_rate is not None
        assert shown(100, 0.1, detectable.at_measured_rate, level) == pytest.approx(0.8, abs=0.005)
    else:
        assert detectable.at_measured_rate is None
        assert shown(100, 0.1, 0.1, level) < 0.8


@pytest.mark.parametrize(("guess", "outcome"), [(0.5, "at_chance"), (0.2, "equivalent"), (0.0, "equivalent")])
def test_generated_answers_that_a_coin_gives_too_are_at_chance(guess, outcome):
    """Half of 400 are right by either model; they differ on none."""
    right = [True, False] * 200
    one = replace(answered("yes-or-no", right, right), guess=guess)
    found = result(one, margin=0.1)
    assert (found.outcome, found.chance.accuracy) == (outcome, guess)
    expected = stats.binomtest(200, 400, guess, alternative="greater").pvalue if guess else 0.0
    assert found.chance.p_reference == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_a_task_that_could_not_be_scored_makes_it_no_easier_for_the_others():
    task = {"source": "file", "format": "gsm8k", "path": "a.jsonl"}
    flipped = answered("a", [True] * 100, [False] * 10 + [True] * 90)
    found = result(flipped, margin=0.02, tasks=[task | {"name": name} for name in "ab"])
    assert found.mcnemar.p == pytest.approx(stats.binomtest(10, 10).pvalue)
    assert found.mcnemar.p_holm == pytest.approx(2 * found.mcnemar.p)
    assert found.detectable.level == 0.025


def test_items_of_a_passage_are_tested_together():
    """Ten harmful flips are one in a thousand of chance; those of a single passage are one flip."""
    flipped = answered("a", [True] * 100, [False] * 10 + [True] * 90)
    items = [replace(item, passage=str(number // 10)) for number, item in enumerate(flipped.items)]
    alone, together = result(flipped, margin=0.02), result(replace(flipped, items=items), margin=0.02)
    assert (alone.passages, together.passages) == (None, 10)
    assert (alone.outcome, together.outcome) == ("worse", "inconclusive")
    assert together.mcnemar.p == 1.0
    assert together.difference.ci[1] - together.difference.ci[0] > 2 * (alone.difference.ci[1] - alone.difference.ci[0])
    assert together.equivalence.p > alone.equivalence.p or alone.equivalence.p > 0.9
