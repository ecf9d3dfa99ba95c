"""The score test for a difference of paired shares: its likelihood, its coverage, and equivalence."""

import math

import numpy as np
import pytest
from scipy import optimize, stats

from workers.analysis.paired.pairs import Pairs
from workers.analysis.paired.score import equivalence, harmful_under, interval, statistic

CASES = [Pairs(60, 20, 12, 3), Pairs(10, 5, 2, 9), Pairs(40, 0, 0, 3), Pairs(80, 10, 7, 0)]


@pytest.mark.parametrize("pairs", CASES)
@pytest.mark.parametrize("difference", [-0.3, -0.05, 0.02, 0.25])
def test_the_constrained_probability_maximizes_the_likelihood(pairs: Pairs, difference: float) -> None:
    rest = pairs.items - pairs.flips

    def loss(q: float) -> float:
        told = ((pairs.harmful, q), (pairs.helpful, q + difference), (rest, 1 - 2 * q - difference))
        return -sum(count * math.log(max(share, 1e-300)) for count, share in told if count)

    low, high = max(0.0, -difference), (1 - difference) / 2
    best = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12})
    assert harmful_under(pairs, difference) == pytest.approx(best.x, abs=2e-5)


@pytest.mark.parametrize("pairs", CASES)
def test_at_no_difference_it_is_mcnemars_statistic(pairs: Pairs) -> None:
    expected = (pairs.helpful - pairs.harmful) / math.sqrt(pairs.flips)
    assert statistic(pairs, 0.0) == pytest.approx(expected)


@pytest.mark.parametrize("pairs", [*CASES, Pairs(50, 50, 0, 0)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_the_interval_ends_where_the_test_begins_to_reject(pairs: Pairs, level: float) -> None:
    low, high = interval(pairs, level=level)
    z = stats.norm.ppf((1 + level) / 2)
    assert low < pairs.difference < high or pairs.flips == 0
    assert statistic(pairs, low) == pytest.approx(z, abs=1e-5)
    assert statistic(pairs, high) == pytest.approx(-z, abs=1e-5)


def test_without_a_flip_it_still_has_a_width() -> None:
    low, high = interval(Pairs(70, 30, 0, 0))
    # The exact limit is 1 − 0.025^(1/100) = 3.6 points.
    assert -0.045 < low < -0.025
    assert high == pytest.approx(-low, abs=1e-6)


@pytest.mark.parametrize(("harmful", "helpful"), [(0.03, 0.03), (0.1, 0.02), (0.005, 0.005)])
def test_it_covers_as_often_as_it_says(harmful: float, helpful: float) -> None:
    rng = np.random.default_rng(7)
    drawn = rng.multinomial(200, [harmful, helpful, 1 - harmful - helpful], 500)
    found = [interval(Pairs(int(rest), 0, int(worse), int(better))) for worse, better, rest in drawn]
    covered = np.mean([low <= helpful - harmful <= high for low, high in found])
    assert 0.925 <= covered <= 0.995


def test_equivalence_is_the_ninety_percent_interval_within_the_margin() -> None:
    rng = np.random.default_rng(5)
    for worse, better, rest in rng.multinomial(400, [0.03, 0.03, 0.94], 60):
        pairs = Pairs(int(rest), 0, int(worse), int(better))
        low, high = interval(pairs, level=0.9)
        assert (equivalence(pairs, 0.03) < 0.05) == (low > -0.03 and high < 0.03)


def test_a_model_on_the_margin_is_called_equivalent_one_time_in_twenty() -> None:
    rng = np.random.default_rng(11)
    drawn = rng.multinomial(500, [0.05, 0.02, 0.93], 1500)
    claimed = [equivalence(Pairs(int(rest), 0, int(worse), int(better)), 0.03) < 0.05 for worse, better, rest in drawn]
    assert 0.02 <= np.mean(claimed) <= 0.075


@pytest.mark.parametrize("margin", [0.0, -0.1, 1.0])
def test_a_margin_that_is_none_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        equivalence(CASES[0], margin)


@pytest.mark.parametrize("difference", [0.0, -0.05])
def test_of_passages_the_interval_covers_and_equivalence_is_claimed_as_often_as_they_say(difference: float) -> None:
    """Six questions on each of 60 passages: a flip takes most of a passage's questions along."""
    rng = np.random.default_rng(11)
    cluster = np.repeat(np.arange(60), 6)
    covered, alone, claimed = 0, 0, 0
    for _ in range(300):
        fate = rng.choice([-1, 0, 1], 60, p=[0.1 - difference / 2, 0.8, 0.1 + difference / 2])[cluster]
        lead = np.where(rng.random(cluster.size) < 0.9, fate, 0) / 1
        pairs = Pairs.of(lead < 0, lead > 0, cluster)
        low, high = interval(pairs)
        covered += low <= 0.9 * difference <= high
        low, high = interval(Pairs.of(lead < 0, lead > 0))
        alone += low <= 0.9 * difference <= high
        # the margin is the difference itself: not within it
        claimed += difference != 0 and equivalence(pairs, abs(0.9 * difference)) < 0.05
    assert 0.92 <= covered / 300 <= 0.98
    assert alone / 300 < 0.75
    assert claimed / 300 <= 0.08
