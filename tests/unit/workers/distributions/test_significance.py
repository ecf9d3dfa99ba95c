"""p-values by clusters against scipy, simulation and the intervals that they invert; Holm's correction against its
definition."""

import numpy as np
import pytest
from scipy import stats

from workers.distributions.intervals import Clusters
from workers.distributions.significance import holm, p_values


def clustered(rng, documents=40, length=5, shift=0.0, spread=1.0):
    effects = rng.normal(shift, spread, documents)
    where = np.repeat(np.arange(documents), length)
    return effects[where] + 0.1 * rng.normal(size=where.size), where


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.4])
def test_it_agrees_with_a_t_test_of_the_documents_means(shift):
    values, where = clustered(np.random.default_rng(4), shift=shift)
    [found] = p_values([values], Clusters(where, "documents"))
    expected = stats.ttest_1samp(values.reshape(40, 5).mean(axis=1), 0).pvalue
    assert found == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("documents", [2, 4])
def test_few_clusters_get_students_t(documents):
    values, where = clustered(np.random.default_rng(1), documents=documents)
    [found] = p_values([values], Clusters(where, "documents"))
    assert found == pytest.approx(stats.ttest_1samp(values.reshape(documents, 5).mean(axis=1), 0).pvalue, rel=1e-9)


def skewed(rng, documents, shift):
    """Two quantities over documents of unequal length whose effects are lognormal around `shift`."""
    where = np.repeat(np.arange(documents), rng.integers(3, 20, documents))
    effects = rng.lognormal(0, 1, (2, documents)) - np.exp(0.5) + shift
    return list(effects[:, where] + 0.3 * rng.normal(size=(2, where.size))), where


@pytest.mark.parametrize("documents", [4, 6, 12, 40])
def test_p_is_below_five_per_cent_exactly_where_the_interval_leaves_zero_out(documents):
    rng = np.random.default_rng(documents)
    outside = 0
    for world in range(150):
        values, where = skewed(rng, documents, shift=rng.choice([-0.8, -0.4, 0.0, 0.5, 1.0]))
        found = p_values(values, Clusters(where, "documents"), seed=world, resamples=1000)
        estimates = Clusters(where, "documents").means(values, seed=world, resamples=1000)
        for p, estimate in zip(found, estimates, strict=True):
            left_out = not estimate.interval[0] <= 0 <= estimate.interval[1]
            assert (p < 0.05) == left_out, (world, p, estimate.interval)
            outside += left_out
    assert 20 < outside < 280  # both kinds were seen


def test_p_is_the_level_at_which_the_interval_touches_zero():
    values, where = clustered(np.random.default_rng(3), documents=25)
    [estimate] = Clusters(where, "documents").means([values], seed=1)
    for limit in estimate.interval:
        [p] = p_values([values - limit], Clusters(where, "documents"), seed=1)
        assert p == pytest.approx(0.05, rel=1e-6)


def test_neither_the_order_of_documents_nor_that_of_tokens_moves_p():
    rng = np.random.default_rng(21)
    for world in range(40):
        values, where = skewed(rng, int(rng.integers(6, 25)), shift=0.3)
        shuffle, names = rng.permutation(where.size), rng.permutation(where.max() + 1)
        plain = p_values(values, Clusters(where, "documents"), seed=world, resamples=500)
        shuffled = Clusters(names[where[shuffle]], "documents")
        moved = p_values([column[shuffle] for column in values], shuffled, seed=world, resamples=500)
        assert moved == pytest.approx(plain, rel=1e-9)


def test_of_skewed_effects_around_nothing_few_are_found_at_any_level():
    rng = np.random.default_rng(31)
    found = []
    for world in range(800):
        effects = rng.lognormal(0, 0.5, 30) - np.exp(0.125)
        clusters = Clusters(np.repeat(np.arange(30), 2), "documents")
        [p] = p_values([np.repeat(effects, 2)], clusters, seed=world, resamples=999)
        found.append(p)
    rejected = {level: np.mean(np.array(found) < level) for level in (0.2, 0.05, 0.01)}
    # Standard errors of 1.4, 0.8 and 0.4 points.
    assert rejected[0.2] == pytest.approx(0.2, abs=0.045)
    assert rejected[0.05] == pytest.approx(0.055, abs=0.025)
    assert rejected[0.01] <= 0.03


def test_what_cancels_in_every_document_is_no_difference():
    values, where = np.tile([0.1, 0.2, -0.3], 10), np.repeat(np.arange(10), 3)
    assert values.mean() != 0  # rounding
    assert p_values([values], Clusters(where, "documents")) == [1.0]
    [estimate] = Clusters(where, "documents").means([values])
    assert estimate.interval == (0.0, 0.0)


def test_holm_by_hand():
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, never falling.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, None, 0.7]) == [1.0, None, 1.0]


CASES = [[0.01], [0.04, 0.01, 0.03], [0.2, 0.2, 0.001, 0.9, 0.04], [1.0, 1.0], [0.5, 0.01, 0.01, 0.02]]


def rejected_by_holm(values: list[float], level: float) -> set[int]:
    """From the smallest p on, while p ≤ level / (number that is left)."""
    found: set[int] = set()
    for place, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        if values[index] > level / (len(values) - place):
            break
        found.add(index)
    return found


@pytest.mark.parametrize("values", CASES)
@pytest.mark.parametrize("level", [0.011, 0.031, 0.051, 0.12, 0.41])
def test_holms_values_reject_what_his_steps_reject(values: list[float], level: float) -> None:
    adjusted = holm(values)
    assert {index for index, value in enumerate(adjusted) if value <= level} == rejected_by_holm(values, level)
