"""The interval of the knee: coverage by simulation, and what it does where there is nothing to test."""

import numpy as np
import pytest

from tests.support.knees import RISING, SCENARIOS, coverage
from tests.unit.workers.analysis.threshold.curves import CURVES
from workers.analysis.threshold import published
from workers.analysis.threshold.bounds import Bounds
from workers.analysis.threshold.curve import Curve
from workers.analysis.threshold.interval import KneeInterval, knee_interval


def interval(curve: Curve, bounds: Bounds, *, seed: int = 0) -> KneeInterval:
    return knee_interval(curve, bounds, published.fit(curve, bounds), seed=seed)


@pytest.mark.parametrize("name", ["12 points, 0.03, k2 = 0", "20 points, 0.02, no bounds"])
def test_from_90_to_97_per_cent_of_intervals_hold_the_true_knee(name: str) -> None:
    """More scenarios, more repeats and noise that grows with s: docs/threshold.md."""
    share, _ = coverage(SCENARIOS[name], repeats=100, resamples=199)
    assert 0.90 <= share <= 0.97


def test_more_noise_makes_it_wider() -> None:
    widths = [coverage(SCENARIOS[name], repeats=8, resamples=99)[1] for name in ("15 points, 0.02", "15 points, 0.1")]
    assert 1.5 * widths[0] < widths[1]


def test_without_noise_it_is_the_knee() -> None:
    scenario = SCENARIOS["15 points, 0.02"]
    found = interval(Curve(scenario.s_N, scenario.truth), RISING)
    assert found.low == pytest.approx(scenario.knee, abs=1e-3)
    assert found.high == pytest.approx(scenario.knee, abs=1e-3)


def test_it_holds_the_estimate_and_stays_within_the_search() -> None:
    for name in ("wanda", "RIA", "w.DSnoT"):
        case = CURVES[name]
        found = interval(case.curve, case.bounds)
        assert found.searched == case.bounds.knee_range(case.curve)
        assert found.searched[0] <= found.low <= published.fit(case.curve, case.bounds).s0 <= found.high
        assert found.high <= found.searched[1]


def test_as_many_coefficients_as_points_leave_the_whole_range() -> None:
    curve = CURVES["wanda"].curve
    few = Curve(curve.s_N[::6], curve.log_N[::6])
    assert len(few) == 5
    found = interval(few, RISING)
    assert (found.low, found.high) == (few.s_N[0], few.s_N[-1])


def test_a_fixed_knee_has_no_width() -> None:
    found = interval(CURVES["wanda"].curve, Bounds(s0=(0.5, 0.5)))
    assert (found.low, found.high) == (0.5, 0.5)


def test_a_straight_curve_has_a_wide_one() -> None:
    s_N = np.linspace(0.1, 0.8, 15)
    curve = Curve(s_N, 2 + 0.3 * np.log(s_N) + 0.02 * np.random.default_rng(3).standard_normal(15))
    found = interval(curve, RISING)
    assert found.high - found.low > 0.2


def test_the_same_seed_gives_the_same_and_another_nearly_the_same() -> None:
    case = CURVES["admm"]
    first, again, other = (interval(case.curve, case.bounds, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.low == pytest.approx(other.low, abs=0.005)
    assert first.high == pytest.approx(other.high, abs=0.005)
