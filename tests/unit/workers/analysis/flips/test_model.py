"""The regression finds the parameters of simulated runs, and its intervals cover."""

import math

import numpy as np
import pytest
from scipy import stats

from tests.unit.workers.analysis.flips.simulation import World, draw
from workers.analysis.flips.model import CENTRE, INTERCEPT_MEAN, INTERCEPT_SD, SLOPE_MEAN, SLOPE_SD, fit
from workers.analysis.flips.runs import Run


def test_where_items_are_countless_it_is_the_linear_model() -> None:
    """Without coin tosses the link is seen itself: a Gaussian, written out with a matrix of runs by runs."""
    runs, _ = draw(World(slope=0.7), tasks=3, runs=12, items=10**12, rng=np.random.default_rng(4))
    model = fit(runs)
    z = np.asarray([math.log(-math.log1p(-run.rate)) for run in runs])
    design = np.asarray(
        [[1.0, math.log(run.kl) - CENTRE, *(float(run.fingerprint == task) for task in model.tasks)] for run in runs]
    )
    prior = np.asarray([INTERCEPT_MEAN, SLOPE_MEAN, 0.0, 0.0, 0.0])
    logs = []
    for part in model.components:
        spread = np.diag([INTERCEPT_SD**2, SLOPE_SD**2, *[part.task_sd**2] * 3])
        marginal = design @ spread @ design.T + part.run_sd**2 * np.eye(len(runs))
        gain = spread @ design.T @ np.linalg.inv(marginal)
        np.testing.assert_allclose(part.mean, prior + gain @ (z - design @ prior), atol=1e-4)
        np.testing.assert_allclose(part.covariance, spread - gain @ design @ spread, atol=1e-5)
        logs.append(stats.multivariate_normal.logpdf(z, design @ prior, marginal))
    expected = np.exp(np.asarray(logs) - max(logs))
    weights = np.asarray([part.weight for part in model.components])
    np.testing.assert_allclose(weights / weights.sum(), expected / expected.sum(), atol=1e-4)
    assert len(weights) > 20


def test_a_task_that_was_seen_is_predicted_by_its_own_runs() -> None:
    world = World(task_sd=0.8, run_sd=0.05)
    runs, effects = draw(world, tasks=5, runs=50, items=2000, rng=np.random.default_rng(1))
    model = fit(runs)
    for task, effect in enumerate(effects):
        expected = 1 - math.exp(-math.exp(world.intercept + world.slope * (math.log(0.2) - CENTRE) + effect))
        low, median, high = model.predict(0.2, 2000, task=f"f{task}")
        assert median == pytest.approx(expected, rel=0.2)
        new_low, _, new_high = model.predict(0.2, 2000)
        assert high - low < 0.6 * (new_high - new_low)


def test_more_items_make_a_narrower_interval_and_more_kl_more_flips() -> None:
    runs, _ = draw(World(), tasks=4, runs=24, items=300, rng=np.random.default_rng(2))
    model = fit(runs)

    def width(items: int) -> float:
        low, _, high = model.predict(0.1, items, task="f0")
        return high - low

    assert width(50) > width(500) > width(5000)
    medians = [model.predict(kl, 2000)[1] for kl in (0.01, 0.1, 1.0)]
    assert medians == sorted(medians)


def test_runs_without_any_flip_are_no_trouble() -> None:
    model = fit([Run(f"j{n}", "t", "f", 100, 0, 0.001 * (n + 1)) for n in range(5)])
    low, median, high = model.predict(0.002, 100, task="f")
    assert (low, median) == (0.0, 0.0)
    assert 0.0 < high < 0.1


def test_a_prediction_can_be_repeated() -> None:
    runs, _ = draw(World(), tasks=3, runs=9, items=200, rng=np.random.default_rng(3))
    assert fit(runs).predict(0.3, 200) == fit(runs).predict(0.3, 200)
    with pytest.raises(ValueError, match="no run"):
        fit([])


def test_the_intervals_cover() -> None:
    """For tasks that were seen and for new ones; tests/bench/flips.py counts more often."""
    rng = np.random.default_rng(5)
    covered = []
    for number in range(20):
        world = World(
            intercept=rng.normal(math.log(0.1), 0.6), task_sd=abs(rng.normal(0, 0.5)), run_sd=abs(rng.normal(0, 0.3))
        )
        runs, effects = draw(world, tasks=4, runs=12, items=200, rng=rng)
        model = fit(runs)
        for task, effect in (("f0", effects[0]), (None, float(rng.normal(0, world.task_sd)))):
            kl = float(np.exp(rng.uniform(math.log(0.01), math.log(1.0))))
            found = rng.binomial(200, world.rate(kl, effect, rng)) / 200
            low, _, high = model.predict(kl, 200, task=task, seed=number)
            covered.append(low <= found <= high)
    assert sum(covered) >= 35  # 40 at 95 %: fewer than 35 in one of 200 tries
