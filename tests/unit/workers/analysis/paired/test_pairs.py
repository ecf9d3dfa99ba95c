"""Pairs of answers and the interval of a share."""

import numpy as np
import pytest
from scipy import stats

from workers.analysis.paired.pairs import Pairs, wilson


def test_every_item_is_counted_where_it_belongs() -> None:
    pairs = Pairs.of([True, True, False, False, True], [True, False, True, False, False])
    assert (pairs.both_right, pairs.both_wrong, pairs.harmful, pairs.helpful) == (1, 1, 2, 1)
    assert (pairs.items, pairs.flips) == (5, 3)
    assert pairs.reference == pytest.approx(0.6)
    assert pairs.candidate == pytest.approx(0.4)
    assert pairs.difference == pytest.approx(-0.2)


@pytest.mark.parametrize(("one", "other"), [([True], [True, False]), ([], []), ([[True]], [[True]])])
def test_what_is_no_pair_is_refused(one: list[bool], other: list[bool]) -> None:
    with pytest.raises(ValueError, match="no pairs"):
        Pairs.of(one, other)


@pytest.mark.parametrize(("right", "items"), [(0, 7), (1, 9), (40, 61), (7, 7)])
def test_the_interval_of_a_share_is_wilsons(right: int, items: int) -> None:
    expected = stats.binomtest(right, items).proportion_ci(0.95, method="wilson")
    assert wilson(right, items) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_it_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    limits = [wilson(int(right), 80) for right in rng.binomial(80, 0.07, 2000)]
    assert 0.925 <= np.mean([low <= 0.07 <= high for low, high in limits]) <= 0.985
