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


def test_the_design_effect_is_the_variance_of_clusters_over_that_of_items() -> None:
    rng = np.random.default_rng(4)
    cluster = np.repeat(np.arange(60), rng.integers(1, 8, 60))
    lead = np.clip(rng.integers(-1, 2, 60)[cluster] + rng.integers(-1, 2, cluster.size), -1, 1)
    pairs = Pairs.of(lead < 0, lead > 0, cluster)
    sums, sizes = np.bincount(cluster, weights=lead), np.bincount(cluster)
    clustered = 60 * np.var(sums - lead.mean() * sizes, ddof=1)
    assert pairs.design == pytest.approx(clustered / (lead.size * np.var(lead)))
    assert pairs.design > 1.5


def test_the_design_effect_is_1_at_least_and_a_single_cluster_shows_no_spread() -> None:
    assert Pairs.of([True, False] * 3, [False, True] * 3, [0, 0, 1, 1, 2, 2]).design == 1.0
    assert Pairs.of([True] * 4, [True] * 4, [0, 0, 1, 1]).design == 1.0
    assert Pairs.of([True, True], [True, False], [5, 5]).design == np.inf
    with pytest.raises(ValueError, match="clusters"):
        Pairs.of([True, True], [True, False], [5])
