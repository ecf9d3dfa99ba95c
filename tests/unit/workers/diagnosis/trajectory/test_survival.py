"""The survival curve of shared text against counts by hand and scipy."""

import numpy as np
import pytest
from scipy import stats

from workers.diagnosis.trajectory.survival import binomial_interval, median, survival


def test_a_text_that_differs_first_at_position_three_is_shared_for_two_tokens():
    curve = survival([3, None], 4)
    assert [point.tokens for point in curve] == [0, 1, 2, 3, 4]
    assert [point.share for point in curve] == [1, 1, 1, 0.5, 0.5]


def test_the_curve_is_kaplan_and_meiers_with_equal_texts_censored_at_the_end():
    rng = np.random.default_rng(0)
    first = [int(value) if value <= 20 else None for value in rng.geometric(0.1, size=50)]
    curve = survival(first, 20)
    data = stats.CensoredData(
        uncensored=[value for value in first if value is not None], right=[20 for value in first if value is None]
    )
    oracle = stats.ecdf(data).sf
    assert [point.share for point in curve] == pytest.approx(oracle.evaluate(np.arange(21)))


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Texts that part with probability 0.02 a token, 32 prompts: P(T > 32) is 0.98³². Exact intervals cover at least
    95 %, and not everything."""
    rng = np.random.default_rng(0)
    truth, covered = 0.98**32, 0
    for _ in range(400):
        first = [int(value) if value <= 64 else None for value in rng.geometric(0.02, 32)]
        low, high = survival(first, 64)[32].ci
        covered += low <= truth <= high
    assert 0.93 <= covered / 400 < 1


def test_the_interval_is_clopper_and_pearsons():
    interval = stats.binomtest(5, 32).proportion_ci(0.95, method="exact")
    assert binomial_interval(5, 32) == pytest.approx((interval.low, interval.high))
    assert binomial_interval(32, 32)[1] == 1
    assert binomial_interval(0, 32)[0] == 0


def test_the_median_is_where_half_have_parted():
    middle, (low, high) = median(survival([1, 2, 3, 4, 5, 6, 7, 8, 9, 10] * 3, 12))
    assert middle == 5
    assert low <= 5 <= high


def test_the_interval_of_the_median_covers():
    rng = np.random.default_rng(4)
    true = int(np.ceil(np.log(0.5) / np.log(1 - 0.08)))  # the first t with (1 − 0.08)^t at most one half
    covered = 0
    for _ in range(60):
        _, (low, high) = median(survival([int(v) for v in rng.geometric(0.08, size=32)], 60))
        covered += (low or 0) <= true <= (high or 10**9)
    assert covered >= 52
