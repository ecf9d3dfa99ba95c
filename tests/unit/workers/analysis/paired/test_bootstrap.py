"""The paired bootstrap covers, and agrees with Student's t where that is right."""

from functools import cache

import numpy as np
import pytest
from scipy import stats

from app.kinds.tasks.report import BOOTSTRAP_FLIPS
from workers.analysis.paired.pairs import bootstrap

ITEMS = 40
MOST_FLIPS = 24


def answers(rng: np.random.Generator, items: int, harmful: float, helpful: float) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    kind = rng.choice(3, items, p=[harmful, helpful, 1 - harmful - helpful])
    reference = np.where(kind == 2, rng.random(items) < 0.6, kind == 0)
    return reference, np.where(kind == 2, reference, kind == 1)


def test_with_many_flips_it_is_students_interval() -> None:
    reference, candidate = answers(np.random.default_rng(0), 2000, 0.15, 0.1)
    change = candidate.astype(float) - reference
    error = change.std(ddof=1) / np.sqrt(change.size)
    t = stats.t.ppf(0.975, change.size - 1)
    expected = change.mean() - t * error, change.mean() + t * error
    assert bootstrap(reference, candidate, seed=0) == pytest.approx(expected, abs=0.15 * error)


def test_it_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    found = [bootstrap(*answers(rng, 150, 0.12, 0.06), seed=number) for number in range(80)]
    assert 0.88 <= np.mean([low <= -0.06 <= high for low, high in found]) <= 1.0


@cache
def interval(harmful: int, helpful: int) -> tuple[float, float]:
    change = np.repeat([-1, 1, 0], [harmful, helpful, ITEMS - harmful - helpful])
    return bootstrap(change < 0, change > 0, seed=0)


def coverage(expected: int, harmful: float) -> float:
    """Exact: the probability, over all numbers of harmful and helpful flips, that the interval holds the true
    difference, where so many flips are expected of 40 items and this share of them is harmful."""
    rates = [expected / ITEMS * harmful, expected / ITEMS * (1 - harmful)]
    true, found = rates[1] - rates[0], 0.0
    for flips in range(MOST_FLIPS + 1):
        for lost in range(flips + 1):
            low, high = interval(lost, flips - lost)
            if low <= true + 1e-12 and high >= true - 1e-12:
                counts = [lost, flips - lost, ITEMS - flips]
                found += stats.multinomial.pmf(counts, ITEMS, [*rates, 1 - sum(rates)])
    return found


def test_the_fewest_flips_that_it_is_shown_for_are_those_from_which_it_covers() -> None:
    splits = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    assert min(coverage(BOOTSTRAP_FLIPS, split) for split in splits) >= 0.9
    assert min(coverage(BOOTSTRAP_FLIPS - 3, split) for split in splits) < 0.9
    assert min(coverage(2, split) for split in splits) < 0.75


def test_without_a_flip_it_is_a_point() -> None:
    assert bootstrap([True, False, True], [True, False, True], seed=0) == (0.0, 0.0)
    with pytest.raises(ValueError, match="two items"):
        bootstrap([True], [True], seed=0)
