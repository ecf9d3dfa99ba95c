"""The published form: global optimum on the ten published curves and on curves that hold traps, against scipy."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize

from tests.support.knees import RISING, SCENARIOS
from tests.unit.workers.analysis.threshold.curves import CURVES, Published
from workers.analysis.threshold import published
from workers.analysis.threshold.bounds import Bounds
from workers.analysis.threshold.curve import Array, Curve


def formula(s_N: Array, a: float, b: float, s0: float, k1: float, k2: float) -> Array:
    """The form as it is printed, point by point."""
    values = [a * s**b if s <= s0 else a * s0**b * np.exp(k1 * (s - s0) + k2 * (s - s0) ** 2) for s in s_N]
    return np.log(values)


def sse(curve: Curve, params: dict[str, float]) -> float:
    return float(((formula(curve.s_N, **params) - curve.log_N) ** 2).sum())


@pytest.mark.parametrize("case", CURVES.values(), ids=list(CURVES))
def test_the_fit_is_never_worse_than_the_published_coefficients_and_keeps_bounds(case: Published) -> None:
    fit = published.fit(case.curve, case.bounds)
    assert sse(case.curve, case.params) == pytest.approx(case.log_sse, abs=2e-5)
    assert fit.log_sse <= sse(case.curve, case.params)
    assert fit.log_sse == pytest.approx(sse(case.curve, fit.params()), rel=1e-9)
    assert (abs(fit.s0 - case.params["s0"]) < 0.002) == case.optimum
    assert case.optimum or fit.log_sse < 0.96 * case.log_sse
    for name, value in fit.params().items():
        low, high = getattr(case.bounds, name)
        assert low is None or value >= low
        assert high is None or value <= high


@pytest.mark.parametrize("name", ["wanda", "RIA", "slicegpt", "w.DSnoT"])
def test_many_starts_of_a_general_solver_find_nothing_better(name: str) -> None:
    case = CURVES[name]
    curve, rng = case.curve, np.random.default_rng(0)
    lower_K, upper_K = case.bounds.box()
    free_K = lower_K < upper_K
    low, high = case.bounds.knee_range(curve)
    lower, upper = np.append(lower_K[free_K], low), np.append(upper_K[free_K], high)

    def residual(place: Array) -> Array:
        full_K = lower_K.copy()
        full_K[free_K] = place[:-1]
        return formula(curve.s_N, np.exp(full_K[0]), full_K[1], place[-1], full_K[2], full_K[3]) - curve.log_N

    costs = []
    for start in np.linspace(low, high, 12)[1:-1]:
        guess = np.array([2.0, 0.3, 8.0, 50.0])[free_K] * rng.uniform(0.7, 1.3, free_K.sum())
        place = np.clip(np.append(guess, start), lower + 1e-6, upper - 1e-6)
        costs.append(2 * optimize.least_squares(residual, place, bounds=(lower, upper), x_scale="jac").cost)
    ours = published.fit(curve, case.bounds).log_sse
    assert ours <= min(costs) * (1 + 1e-6)
    assert ours == pytest.approx(min(costs), rel=2e-2)


@pytest.mark.parametrize("bounds", [Bounds(), RISING, CURVES["LLM_Pruner"].bounds])
def test_no_knee_on_a_fine_grid_beats_the_fit(bounds: Bounds) -> None:
    curve = next(SCENARIOS["15 points, 0.1"].curves(1, seed=4))
    lower_K, upper_K = bounds.box()
    free_K = lower_K < upper_K
    least = np.inf
    for knee in np.linspace(curve.s_N[0], curve.s_N[-1], 801):
        design_NK = published.basis(curve.s_N, np.array([knee]))[0][:, free_K]
        solved = optimize.lsq_linear(design_NK, curve.log_N, (lower_K[free_K], upper_K[free_K]), method="bvls")
        least = min(least, 2 * solved.cost)
    assert published.fit(curve, bounds).log_sse <= least + 1e-10


@pytest.mark.parametrize("knee", [0.573, 0.55, 0.2, 0.33])
def test_a_curve_without_noise_gives_its_knee_back_on_a_point_and_between_points(knee: float) -> None:
    s_N = np.linspace(0.1, 0.8, 15)
    curve = Curve(s_N, formula(s_N, 8.0, 0.23, knee, 5.0, 40.0))
    fit = published.fit(curve, RISING)
    assert fit.s0 == pytest.approx(knee, abs=1e-5)
    assert fit.params() == pytest.approx({"a": 8.0, "b": 0.23, "s0": knee, "k1": 5.0, "k2": 40.0}, rel=2e-3)


def test_among_equally_good_knees_the_middle_of_their_stretch_is_told() -> None:
    s_N = np.linspace(0.1, 0.8, 8)
    fit = published.fit(Curve(s_N, 2 + 0.3 * np.log(s_N)), RISING)
    assert fit.log_sse < 1e-20
    assert fit.tied == pytest.approx((0.7, 0.8), abs=1e-9)
    assert fit.s0 == pytest.approx(0.75)


def test_scaling_the_values_moves_a_alone() -> None:
    case = CURVES["ASVD"]
    plain, scaled = (
        published.fit(replace(case.curve, log_N=case.curve.log_N + shift), case.bounds) for shift in (0.0, 300.0)
    )
    assert scaled.s0 == pytest.approx(plain.s0, abs=1e-6)
    assert scaled.log_a == pytest.approx(plain.log_a + 300)
    assert scaled.log_sse == pytest.approx(plain.log_sse)


def test_slopes_are_the_derivatives_at_the_knee() -> None:
    fit = published.fit(CURVES["admm"].curve, CURVES["admm"].bounds)
    step = 1e-6
    below, at, beyond = fit.predict(np.array([fit.s0 - step, fit.s0, fit.s0 + step]))
    assert fit.slopes() == pytest.approx(((at - below) / step, (beyond - at) / step), rel=1e-3)


def test_tangents_are_the_derivatives_of_the_form() -> None:
    s_N = np.linspace(0.1, 0.9, 9)
    place = np.array([2.0, 0.3, 4.0, 20.0, 0.47])

    def log_value(at: Array) -> Array:
        return formula(s_N, np.exp(at[0]), at[1], at[4], at[2], at[3])

    tangent_NK = published.tangents(s_N, *place[1:])
    for index in range(5):
        step = np.zeros(5)
        step[index] = 1e-6
        assert tangent_NK[:, index] == pytest.approx(
            (log_value(place + step) - log_value(place - step)) / 2e-6, abs=1e-5
        )
