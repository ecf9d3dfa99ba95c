"""Detectable effects against the noncentral t, tokens to decide against an interval that is shrunk by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from workers.distributions.power import minimum_detectable_effect, tokens_to_decide


@pytest.mark.parametrize("clusters", [5, 10, 30, 60, 500])
@pytest.mark.parametrize("power", [0.8, 0.9])
def test_the_smallest_effect_is_detected_as_often_as_asked(clusters: int, power: float) -> None:
    effect = minimum_detectable_effect(0.25, clusters, power=power)
    assert effect is not None
    critical = stats.t.ppf(0.975, clusters - 1)
    assert stats.nct.sf(critical, clusters - 1, effect / 0.25) == pytest.approx(
        power, abs=0.04 if clusters < 10 else 0.02
    )


def test_no_spread_detects_everything_and_a_single_cluster_nothing() -> None:
    assert minimum_detectable_effect(0.0, 30) == 0.0
    assert minimum_detectable_effect(1.0, 1) is None


def test_an_interval_that_straddles_nothing_is_decided_already() -> None:
    assert tokens_to_decide(1000, 0.3, (0.25, 0.4), [0.01, 0.2, 1.0]) == 1000


@pytest.mark.parametrize(
    ("interval", "thresholds", "factor"),
    [
        ((0.2, 0.5), [0.4], 4),  # 0.2 above the mean, the threshold halfway
        ((0.2, 0.5), [0.25], 4),  # 0.1 below the mean, the threshold halfway
        ((0.0, 0.5), [0.2, 0.4], 9),  # the harder of the two: 0.3 below, a third of the way
    ],
)
def test_half_the_way_needs_four_times_the_text(
    interval: tuple[float, float], thresholds: list[float], factor: int
) -> None:
    assert tokens_to_decide(1000, 0.3, interval, thresholds) == pytest.approx(1000 * factor, abs=1)


def test_a_threshold_on_the_upper_limit_is_not_left_yet_and_one_on_the_lower_is() -> None:
    assert tokens_to_decide(1000, 0.3, (0.2, 0.5), [0.5]) == 1001
    assert tokens_to_decide(1000, 0.3, (0.2, 0.5), [0.2]) == 1000


@given(
    st.integers(10, 10**6),
    st.floats(0.01, 1.0),
    st.floats(1e-3, 0.9),
    st.floats(1e-3, 0.9),
    st.floats(0.05, 0.95),
    st.booleans(),
)
def test_with_so_many_tokens_the_threshold_is_outside(
    tokens: int, mean: float, below: float, above: float, part: float, higher: bool
) -> None:
    threshold = mean + part * above if higher else mean - part * below
    needed = tokens_to_decide(tokens, mean, (mean - below, mean + above), [threshold])
    assert needed > tokens
    shrunk = math.sqrt(tokens / (needed + 1))
    assert not mean - below * shrunk < threshold <= mean + above * shrunk
    # and not far more than are needed
    shrunk = math.sqrt(tokens / (0.98 * needed - 2))
    assert mean - below * shrunk < threshold <= mean + above * shrunk
