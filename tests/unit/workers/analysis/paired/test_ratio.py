"""The score test for a ratio of paired shares: its likelihood, a published example, its coverage."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from workers.analysis.paired.pairs import Pairs
from workers.analysis.paired.ratio import harmful_under, interval, statistic

# Both right, both wrong, harmful, helpful.
CASES = [Pairs(60, 20, 12, 3), Pairs(10, 5, 2, 9), Pairs(40, 0, 0, 3), Pairs(80, 10, 7, 0)]


@pytest.mark.parametrize("pairs", CASES)
@pytest.mark.parametrize("ratio", [0.5, 0.93, 1.0, 1.4])
def test_the_constrained_probability_maximizes_the_likelihood(pairs: Pairs, ratio: float) -> None:
    def loss(q: float) -> float:
        """Of items that one of both answers rightly: share of harmful ones q, so that the ratio is the supposed one."""
        both = (1 - (1 + ratio) * q) / ratio
        told = ((pairs.harmful, q), (pairs.both_right, both), (pairs.helpful, 1 - q - both))
        return -sum(count * math.log(max(share, 1e-300)) for count, share in told if count)

    low, high = max(0.0, 1 - ratio), 1 / (1 + ratio)
    best = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12})
    assert harmful_under(pairs, ratio) == pytest.approx(best.x, abs=2e-5)


@pytest.mark.parametrize("pairs", CASES)
def test_at_no_difference_it_is_mcnemars_statistic(pairs: Pairs) -> None:
    assert statistic(pairs, 1.0) == pytest.approx((pairs.helpful - pairs.harmful) / math.sqrt(pairs.flips))


def test_it_is_that_of_a_published_example() -> None:
    """Airway hyper-responsiveness before and after a transplantation (2 and 8 of 21 children, 1 both times): Fagerland,
    Lydersen and Laake, Statistics in Medicine 33 (2014) 2850–2875, give 0.065 to 0.907 for the asymptotic score
    interval."""
    assert interval(Pairs(both_right=1, both_wrong=12, harmful=7, helpful=1)) == pytest.approx((0.065, 0.907), abs=5e-4)


@pytest.mark.parametrize("pairs", [*CASES, Pairs(50, 50, 0, 0)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_interval_ends_where_the_test_begins_to_reject(pairs: Pairs, level: float) -> None:
    low, high = interval(pairs, level=level)
    z = stats.norm.ppf((1 + level) / 2)
    assert low < pairs.candidate / pairs.reference < high
    assert statistic(pairs, low) == pytest.approx(z, abs=1e-5)
    assert statistic(pairs, high) == pytest.approx(-z, abs=1e-5)


def test_without_a_flip_it_still_has_a_width() -> None:
    # By hand: q is 1 − θ below 1 and 0 above, so that z² is 100 (1 − θ) / θ and 100 (θ − 1).
    z2 = float(stats.norm.ppf(0.975)) ** 2
    assert interval(Pairs(100, 37, 0, 0)) == pytest.approx((100 / (100 + z2), 1 + z2 / 100))


def test_where_nothing_is_kept_it_begins_at_nothing() -> None:
    low, high = interval(Pairs(0, 10, 5, 0))
    assert low == 0 < high < 1
    with pytest.raises(ValueError, match="no right answer"):
        interval(Pairs(0, 10, 0, 5))


@pytest.mark.parametrize(("harmful", "helpful", "both"), [(0.03, 0.03, 0.6), (0.1, 0.02, 0.7), (0.01, 0.005, 0.4)])
def test_it_covers_as_often_as_it_says(harmful: float, helpful: float, both: float) -> None:
    rng = np.random.default_rng(7)
    drawn = rng.multinomial(200, [both, 1 - both - harmful - helpful, harmful, helpful], 500)
    found = [interval(Pairs(*map(int, counts))) for counts in drawn]
    true = (both + helpful) / (both + harmful)
    assert 0.925 <= np.mean([low <= true <= high for low, high in found]) <= 0.995
