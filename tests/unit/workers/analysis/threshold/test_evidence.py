"""Is there a transition, does the form fit: error rates by simulation."""

import numpy as np
import pytest

from tests.support.knee_documents import around, curve_of, simulated
from tests.support.knees import RISING, SCENARIOS
from tests.unit.workers.analysis.threshold.curves import CURVES
from workers.analysis.threshold import published
from workers.analysis.threshold.answer import TRANSITION_LEVEL
from workers.analysis.threshold.bounds import Bounds
from workers.analysis.threshold.curve import Array, Curve
from workers.analysis.threshold.evidence import lack_of_fit, transition_test

S_N = np.linspace(0.1, 0.8, 12)
STRAIGHT = {
    "constant": 0 * S_N + 1.7,
    "power law": 2 + 0.3 * np.log(S_N),
    "exponential": 1.5 + 3 * S_N,
    "line": np.log(np.linspace(7.0, 21.0, 12)),
    "steep line": np.log(np.linspace(15.0, 85.0, 12)),
}


def called_transition(truth_N: Array, bounds: Bounds, noise_N: Array) -> float:
    rng, called = np.random.default_rng(5), 0
    for index in range(40):
        curve = Curve(S_N, truth_N + noise_N * rng.standard_normal(len(S_N)))
        called += transition_test(curve, bounds, seed=index, resamples=199).p <= TRANSITION_LEVEL
    return called / 40


def test_at_least_95_per_cent_of_curves_without_a_knee_are_called_so() -> None:
    even_N = np.full(12, 0.03)
    called = {shape: called_transition(truth_N, RISING, even_N) for shape, truth_N in STRAIGHT.items()}
    called |= {f"{shape}, open": called_transition(STRAIGHT[shape], Bounds(), even_N) for shape in ("constant", "line")}
    called["growing noise"] = called_transition(STRAIGHT["power law"], RISING, np.linspace(0.03, 0.09, 12))
    assert {shape: share for shape, share in called.items() if share > 0.05} == {}


@pytest.mark.parametrize("name", ["8 points, 0.02", "15 points, 0.1", "20 points, 0.02, no bounds"])
def test_knees_are_seen(name: str) -> None:
    scenario = SCENARIOS[name]
    for index, curve in enumerate(scenario.curves(4, seed=2)):
        assert transition_test(curve, scenario.bounds, seed=index, resamples=199).p <= TRANSITION_LEVEL


def test_errors_that_documents_share_along_the_curve_feign_no_transition() -> None:
    """Each setting's errors upon those of the one before bend a straight curve; without bounds, and taken for
    independent, they are a transition four times as often as the level allows."""
    rng, alone, together = np.random.default_rng(3), 0, 0
    for index in range(60):
        losses = around(STRAIGHT["constant"], "accumulating", 20, rng)
        curve = curve_of(S_N, losses)
        alone += transition_test(curve, Bounds(), seed=index, resamples=299).p <= TRANSITION_LEVEL
        tested = transition_test(curve, Bounds(), documents=losses, seed=index, resamples=299)
        together += tested.p <= TRANSITION_LEVEL
    assert together <= 1
    assert alone >= 5


def test_knees_are_seen_over_documents() -> None:
    scenario, rng = SCENARIOS["15 points, 0.02"], np.random.default_rng(4)
    for index in range(4):
        losses = simulated(scenario, 40, rng)
        curve = curve_of(scenario.s_N, losses)
        tested = transition_test(curve, scenario.bounds, documents=losses, seed=index, resamples=199)
        assert tested.p <= TRANSITION_LEVEL


def test_every_straight_form_must_be_rejected() -> None:
    curve = Curve(S_N, STRAIGHT["exponential"] + 0.02 * np.random.default_rng(0).standard_normal(12))
    tested = transition_test(curve, RISING)
    assert tested.p_values["power_law"] <= 0.001
    assert tested.p == tested.p_values["exponential"] > 0.1
    line = Curve(S_N, STRAIGHT["line"] + 0.01 * np.random.default_rng(0).standard_normal(12))
    tested = transition_test(line, Bounds())
    assert max(tested.p_values["power_law"], tested.p_values["exponential"]) <= 0.001
    assert tested.p == tested.p_values["line"] > 0.1


def test_a_p_value_is_uniform_enough_where_the_hypothesis_holds() -> None:
    p_values = []
    for index in range(80):
        curve = Curve(S_N, STRAIGHT["line"] + 0.03 * np.random.default_rng(index).standard_normal(12))
        p_values.append(transition_test(curve, Bounds(), seed=index, resamples=99).p_values["line"])
    assert 0.35 <= np.mean(np.array(p_values) <= 0.5) <= 0.65


def test_a_right_form_is_seldom_called_wrong() -> None:
    scenario, p_values = SCENARIOS["15 points, 0.02"], []
    for index, curve in enumerate(scenario.curves(50, seed=1)):
        fit = published.fit(curve, scenario.bounds)
        p_values.append(lack_of_fit(curve, scenario.bounds, fit, seed=index, resamples=99))
    found = np.array(p_values, dtype=np.float64)
    assert (found <= 0.05).mean() <= 0.1
    assert 0.3 <= (found <= 0.5).mean() <= 0.7


def test_a_form_that_misses_a_bend_is_called_wrong() -> None:
    s_N = np.linspace(0.1, 0.9, 25)
    wave_N = 2 + 3 * s_N**2 + 0.15 * np.sin(12 * s_N)
    curve = Curve(s_N, wave_N + 0.01 * np.random.default_rng(0).standard_normal(25))
    p = lack_of_fit(curve, RISING, published.fit(curve, RISING))
    assert p <= 0.01


def test_with_fewer_than_two_spare_points_the_fit_cannot_be_tested() -> None:
    case = CURVES["RIA"]
    few = case.curve.without(0).without(0)
    assert lack_of_fit(few, case.bounds, published.fit(few, case.bounds)) is None
