"""Means and ratios with intervals, where there are clusters enough for one."""

import numpy as np
import pytest

from workers.distributions.intervals import Clusters
from workers.distributions.token_values import Positions
from workers.measuring.means import GAINED, mean_of, ratio


def where(documents: int, each: int) -> Positions:
    document = np.repeat(np.arange(documents), each).astype(np.int32)
    return Positions(document, document, document, document, document)


def test_the_interval_covers_the_true_ratio_as_often_as_it_says() -> None:
    """Documents with effects of their own: 95 % within what 150 simulations can tell."""
    rng = np.random.default_rng(5)
    covered = 0
    for seed in range(150):
        effect = np.repeat(rng.lognormal(0, 0.5, 40), 20)
        part = np.repeat(rng.uniform(0.2, 0.4, 40), 20)
        bottom = effect * rng.exponential(size=800)
        found = ratio(part * bottom, bottom, where(40, 20), seed=seed)
        covered += found.ci[0] <= 0.3 <= found.ci[1]
    assert 0.89 <= covered / 150 <= 0.99


def test_positions_that_are_not_finite_are_left_out_and_without_any_there_is_no_value() -> None:
    top, bottom = np.full(40, 0.5), np.ones(40)
    top[3] = np.nan
    assert ratio(top, bottom, where(8, 5), seed=0).mean == pytest.approx(0.5)
    assert ratio(bottom, np.zeros(40), where(8, 5), seed=0) is None
    assert ratio(np.full(40, np.nan), bottom, where(8, 5), seed=0) is None
    assert mean_of(np.full(40, np.nan), where(8, 5), seed=0).mean is None


def test_fewer_than_six_clusters_leave_no_interval() -> None:
    """Two documents of a window each had one by Student's t, and its digits were printed."""
    rng = np.random.default_rng(1)
    for documents in (1, 2, 5):
        bottom = rng.exponential(size=10 * documents)
        found = ratio(0.08 * bottom, bottom, where(documents, 10), seed=0)
        assert found.mean == pytest.approx(0.08)
        assert (found.ci, found.clusters) == (None, None)
        alone = mean_of(bottom, where(documents, 10), seed=0)
        assert alone.mean == pytest.approx(bottom.mean())
        assert (alone.ci, alone.clusters) == (None, None)


def test_six_windows_of_few_documents_have_an_interval_that_says_what_it_is_clustered_by() -> None:
    values = np.random.default_rng(2).exponential(size=60)
    window = np.repeat(np.arange(6), 10).astype(np.int32)
    few = Positions(window // 3, window, window, window, window)
    found = mean_of(values, few, seed=4)
    plain = Clusters(window, "windows").means([values], seed=4)[0]
    assert found.ci == plain.interval
    assert found.clusters == "windows"


def test_a_share_is_not_below_0_and_what_is_gained_of_the_whole_not_above_1() -> None:
    bottom, top = np.ones(80), np.zeros(80)
    top[0] = 8.0
    assert ratio(top, bottom, where(8, 10), seed=0).ci[0] == 0
    gained = ratio(bottom - top, bottom, where(8, 10), seed=0, support=GAINED)
    wide = ratio(bottom - top, bottom, where(8, 10), seed=0, support=(-np.inf, np.inf))
    assert gained.ci == (wide.ci[0], 1.0)
    assert wide.ci[1] > 1
