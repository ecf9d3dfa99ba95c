"""Predictions of real runs from the others: what is left out, what is counted, and what the page tells of it."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy import stats

from tests.bench import flips_real
from tests.bench.flips_real import LEFT_OUT, Predicted, predicted, rows_of
from tests.bench.flips_runs import BENCH, RECIPES, RUNS, read
from tests.bench.flips_tasks import ITEMS
from tests.bench.rows import read as read_rows
from tests.unit.workers.analysis.flips.simulation import World, draw
from workers.analysis.flips.prediction import Predictor
from workers.analysis.flips.runs import Run

# Eight recipes on four tasks: `draw` takes the tasks by turns.
DRAWN = [
    replace(run, candidate=f"c{number // 4}")
    for number, run in enumerate(draw(World(), tasks=4, runs=32, items=100, rng=np.random.default_rng(0))[0])
]
KEPT = {
    "recipe_left_out": lambda other, run: other.candidate != run.candidate,
    "task_left_out": lambda other, run: other.task != run.task,
    "both_left_out": lambda other, run: other.candidate != run.candidate and other.task != run.task,
}


@pytest.mark.parametrize(("case", "others"), [("recipe_left_out", 28), ("task_left_out", 24), ("both_left_out", 21)])
def test_a_run_is_predicted_from_those_that_are_not_left_out(case: str, others: int) -> None:
    found = list(predicted(DRAWN, LEFT_OUT[case]))
    assert [one.run for one in found] == DRAWN
    for one in found[::9]:
        known = [other for other in DRAWN if KEPT[case](other, one.run)]
        assert len(known) == others
        told = Predictor(known).predict(one.run.kl, one.run.items, task=one.run.identity)
        assert (one.median, one.intervals[95], one.status) == (told.rate, told.interval, told.status)
        assert one.width(50) < one.width(95)
        assert 0.5 <= one.expected[50] < 0.95 <= one.expected[95]


def test_rows_count_what_the_intervals_hold() -> None:
    """Three runs of 100 items: one within both intervals, one within the wider one, one within none."""
    intervals = {50: (0.1, 0.2), 95: (0.0, 0.3)}
    found = [
        Predicted(Run("j", "t", "f", 100, flips, 0.1), "seen", 0.15, intervals, {50: 0.6, 95: 0.96})
        for flips in (20, 30, 31)
    ]
    told = {row.metric: row.value for row in rows_of("case", found)}
    assert (told["predictions"], told["held_by_50"], told["held_by_95"]) == (3, 1, 2)
    assert told["coverage_of_95"] == pytest.approx(2 / 3)
    # Clopper and Pearson's: two of three or more, and two or fewer, have 2.5 % each.
    low, high = told["coverage_of_95_low"], told["coverage_of_95_high"]
    assert (stats.binom.sf(1, 3, low), stats.binom.cdf(2, 3, high)) == pytest.approx((0.025, 0.025))
    assert told["expected_of_50"] == pytest.approx(0.6)
    assert told["median_width"] == pytest.approx(0.3)
    # 15 of 100 expected: 8 or fewer have 2.7 % (7 have 1.2 %), 22 or fewer 97.8 %.
    assert told["median_width_of_tosses"] == pytest.approx(0.14)
    assert told["median_absolute_error"] == pytest.approx(0.15)
    assert told["mean_error"] == pytest.approx(0.15 - 0.27)


def test_the_rows_are_those_of_the_runs() -> None:
    made = list(flips_real.rows(read()))
    kept = [row for row in read_rows(flips_real.RESULTS) if row.bench == BENCH]
    assert [row[:3] for row in kept] == [row[:3] for row in made]
    assert [row.value for row in kept] == pytest.approx([row.value for row in made], rel=1e-5)


def test_the_runs_are_of_one_machine_each_recipe_on_each_task_once_and_name_no_folder() -> None:
    told = read()
    recipes, tasks = {one.recipe for one in told}, {one.run.task for one in told}
    assert len({one.machine for one in told}) == 1
    assert {(one.recipe, one.run.task) for one in told} == set(product(recipes, tasks))
    assert len(told) == len(recipes) * len(tasks)
    assert len({one.run.candidate for one in told}) == len(recipes)
    assert len({one.run.identity for one in told}) == len(tasks)
    assert recipes <= set(RECIPES)
    assert tasks == {"example", *ITEMS}
    assert "/" not in RUNS.read_text(encoding="utf-8")
