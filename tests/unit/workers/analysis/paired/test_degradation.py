"""The average degradation over tasks, by hand and by simulation."""

import math

import numpy as np
import pytest

from workers.analysis.paired import ratio
from workers.analysis.paired.degradation import Loss, average, of_task
from workers.analysis.paired.pairs import Pairs


def test_a_loss_is_the_part_of_the_references_accuracy_that_is_gone() -> None:
    # 80 right of 100 become 72: a tenth of them, not eight points.
    pairs = Pairs(both_right=70, both_wrong=18, harmful=10, helpful=2)
    found = of_task(pairs)
    assert found.mean == pytest.approx(0.1)
    low, high = ratio.interval(pairs)
    assert found.ci == pytest.approx((1 - high, 1 - low))
    assert of_task(Pairs(70, 18, 2, 10)).mean == pytest.approx(-8 / 72), "a gain is a loss below 0"


def test_each_task_counts_once_and_its_own_limits_make_the_interval() -> None:
    losses = [Loss(0.10, (0.04, 0.18)), Loss(-0.02, (-0.05, 0.01))]
    found = average(losses)
    assert found.mean == pytest.approx(0.04)
    # Half of √(0.06² + 0.03²) below, and of √(0.08² + 0.03²) above.
    assert found.ci == pytest.approx((0.04 - math.sqrt(0.0045) / 2, 0.04 + math.sqrt(0.0073) / 2))


def test_of_one_task_it_is_that_tasks_own() -> None:
    one = of_task(Pairs(60, 20, 12, 3))
    assert average([one]).mean == pytest.approx(one.mean)
    assert average([one]).ci == pytest.approx(one.ci)
    with pytest.raises(ValueError, match="needs a task"):
        average([])


def test_the_interval_of_a_mean_covers_as_often_as_it_says() -> None:
    """Three tasks of other sizes and losses, as they may stand beside each other."""
    rng = np.random.default_rng(11)
    tasks = [(300, (0.70, 0.20, 0.06, 0.04)), (100, (0.45, 0.42, 0.08, 0.05)), (60, (0.85, 0.08, 0.05, 0.02))]
    true = np.mean([1 - (both + helpful) / (both + harmful) for _, (both, _, harmful, helpful) in tasks])
    held = []
    for _ in range(400):
        drawn = [rng.multinomial(items, shares) for items, shares in tasks]
        low, high = average([of_task(Pairs(*map(int, counts))) for counts in drawn]).ci
        held.append(low <= true <= high)
    assert 0.92 <= np.mean(held) <= 0.985
