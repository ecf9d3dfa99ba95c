"""McNemar's exact test against scipy, and its power against simulation."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from workers.analysis.paired.mcnemar import detectable, exact, power
from workers.analysis.paired.pairs import Pairs


def pairs(harmful: int, helpful: int, items: int = 500) -> Pairs:
    return Pairs(both_right=items - harmful - helpful, both_wrong=0, harmful=harmful, helpful=helpful)


@pytest.mark.parametrize(("harmful", "helpful"), [(0, 1), (5, 0), (12, 1), (9, 9), (30, 44), (7, 20)])
def test_p_is_that_of_the_binomial_test(harmful: int, helpful: int) -> None:
    assert exact(pairs(harmful, helpful)) == pytest.approx(stats.binomtest(harmful, harmful + helpful).pvalue)


def test_without_a_flip_nothing_is_shown() -> None:
    assert exact(pairs(0, 0)) == 1.0


def clustered(*leads: int, items: int = 4) -> Pairs:
    """Clusters with so many more helpful than harmful flips each."""
    harmful, helpful = sum(-lead for lead in leads if lead < 0), sum(lead for lead in leads if lead > 0)
    clusters = tuple((items, lead) for lead in leads)
    return Pairs(items * len(leads) - harmful - helpful, 0, harmful, helpful, clusters)


@pytest.mark.parametrize("leads", [(3, 1, -1, 2, 0), (-4, -4, -1, 2), (1, 1, 1, 1, -1, 2, 3, -2), (0, 0)])
def test_of_clusters_p_is_the_share_of_all_signs_that_are_as_far_off(leads: tuple[int, ...]) -> None:
    every = [
        sum(sign * lead for sign, lead in zip(signs, leads, strict=True))
        for signs in product((-1, 1), repeat=len(leads))
    ]
    expected = np.mean(np.abs(every) >= abs(sum(leads)))
    assert exact(clustered(*leads)) == pytest.approx(expected)


def test_of_many_clusters_p_is_that_of_the_normal_statistic() -> None:
    """Durkalski's z = Σ d_c / √Σ d_c²."""
    leads = np.random.default_rng(2).integers(-4, 5, 400)
    z = (leads.sum() + 0.5) / np.sqrt(np.square(leads).sum())
    assert exact(clustered(*map(int, leads))) == pytest.approx(2 * stats.norm.sf(abs(z)), abs=0.03)


@pytest.mark.parametrize(("harmful", "helpful"), [(0, 1), (12, 1), (9, 9), (30, 44)])
def test_clusters_of_one_item_are_independent_items(harmful: int, helpful: int) -> None:
    leads = [-1] * harmful + [1] * helpful + [0] * 20
    assert exact(clustered(*leads, items=1)) == pytest.approx(exact(pairs(harmful, helpful)))


@pytest.mark.parametrize(("items", "rate", "difference"), [(40, 0.3, 0.2), (60, 0.5, 0.1), (25, 0.9, 0.6)])
def test_the_power_is_the_sum_over_every_outcome_that_is_rejected(items: int, rate: float, difference: float) -> None:
    harmful = (rate + difference) / 2 / rate
    rejected = 0.0
    for flips in range(items + 1):
        chance = stats.binom.pmf(flips, items, rate)
        for bad in range(flips + 1):
            if exact(pairs(bad, flips - bad, items)) <= 0.05:
                rejected += chance * stats.binom.pmf(bad, flips, harmful)
    assert power(items, rate, difference) == pytest.approx(rejected, abs=1e-6)


@pytest.mark.parametrize(("items", "rate", "difference"), [(200, 0.1, 0.05), (1000, 0.05, 0.02), (60, 0.3, 0.2)])
def test_the_power_is_what_simulation_finds(items: int, rate: float, difference: float) -> None:
    rng = np.random.default_rng(1)
    harmful, helpful = (rate + difference) / 2, (rate - difference) / 2
    drawn = rng.multinomial(items, [harmful, helpful, 1 - rate], 4000)
    found = np.mean([exact(pairs(int(row[0]), int(row[1]), items)) <= 0.05 for row in drawn])
    assert power(items, rate, difference) == pytest.approx(found, abs=0.025)


def test_no_difference_is_shown_at_most_as_often_as_the_level_says() -> None:
    assert 0.0 < power(400, 0.1, 0.0) <= 0.05


@pytest.mark.parametrize(("items", "rate"), [(300, 0.1), (2000, 0.05)])
def test_the_detectable_difference_is_shown_four_times_in_five(items: int, rate: float) -> None:
    least = detectable(items, rate)
    assert least is not None
    assert power(items, rate, least) >= 0.8
    assert power(items, rate, least - 0.002) < 0.8


def test_too_few_items_show_nothing() -> None:
    assert detectable(50, 0.05) is None
    assert detectable(50, 0.0) is None
    with pytest.raises(ValueError, match="needs a flip rate"):
        power(100, 0.05, 0.06)
