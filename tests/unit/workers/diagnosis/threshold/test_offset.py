"""The published form over a dense value: nests the published form, finds an offset, keeps bounds."""

import numpy as np
import pytest
from scipy import optimize

from tests.unit.workers.diagnosis.threshold.curves import CURVES, Published
from tests.unit.workers.diagnosis.threshold.simulation import RISING
from workers.diagnosis.threshold import published
from workers.diagnosis.threshold.bounds import Bounds
from workers.diagnosis.threshold.curve import Array, Curve
from workers.diagnosis.threshold.offset import PublishedWithOffset

S_N = np.linspace(0.1, 0.8, 15)
PLACE = np.array([1.0, 2.0, 12.0, 30.0])


def curve_over(dense: float) -> Curve:
    return Curve(S_N, np.log(dense + np.exp(published.basis(S_N, np.array([0.55]))[0] @ PLACE)))


def form(bounds: Bounds, curve: Curve, dense: float | None = None) -> PublishedWithOffset:
    return PublishedWithOffset(bounds, bounds.knee_range(curve), dense)


@pytest.mark.parametrize("given", [5.0, None], ids=["given", "fitted"])
def test_a_curve_over_an_offset_is_recovered(given: float | None) -> None:
    curve = curve_over(5.0)
    fit = form(RISING, curve, given).fit(curve)
    assert fit.log_sse < 1e-8
    expected = {"log_a": 1.0, "b": 2.0, "k1": 12.0, "k2": 30.0, "s0": 0.55, "dense": 5.0}
    assert fit.params == pytest.approx(expected, rel=2e-2)
    assert fit.predict(S_N) == pytest.approx(curve.log_N, abs=1e-4)


@pytest.mark.parametrize("case", CURVES.values(), ids=list(CURVES))
def test_with_a_free_offset_it_is_never_worse_than_without(case: Published) -> None:
    fit = form(case.bounds, case.curve).fit(case.curve)
    assert fit.log_sse <= published.fit(case.curve, case.bounds).log_sse * (1 + 1e-9)
    for name in ("b", "s0", "k1", "k2"):
        low, high = getattr(case.bounds, name)
        assert low is None or fit.params[name] >= low - 1e-9
        assert high is None or fit.params[name] <= high + 1e-9
    assert 0 <= fit.params["dense"] < np.exp(case.curve.log_N.min())


@pytest.mark.parametrize(("name", "dense"), [("wanda", 5.12), ("admm", 5.12), ("RIA", 5.47)])
def test_the_fitted_offset_is_near_the_perplexity_of_the_unmodified_model(name: str, dense: float) -> None:
    """Those of LLaMA-2-7B that the same authors measured (5.12 and 5.47, by evaluator), which no curve contains."""
    case = CURVES[name]
    assert form(case.bounds, case.curve).fit(case.curve).params["dense"] == pytest.approx(dense, rel=0.01)


def test_a_general_solver_from_many_starts_finds_nothing_better() -> None:
    case = CURVES["ASVD"]
    curve = case.curve
    low, high = case.bounds.knee_range(curve)
    rng = np.random.default_rng(0)

    def residual(place: Array) -> Array:
        grown_N = np.exp(np.clip(published.basis(curve.s_N, place[4:5])[0] @ place[:4], -300, 300))
        return np.asarray(np.log(place[5] + grown_N) - curve.log_N)

    costs = []
    for knee in np.linspace(low, high, 10)[1:-1]:
        start = [rng.uniform(2, 7), rng.uniform(0.5, 4), rng.uniform(5, 20), rng.uniform(50, 400), knee, 5.4]
        bounds = ([-np.inf, 0, 0, 0, low, 0], [np.inf, np.inf, np.inf, np.inf, high, 5.5187])
        costs.append(2 * optimize.least_squares(residual, start, bounds=bounds, x_scale="jac", max_nfev=400).cost)
    assert form(case.bounds, curve).fit(curve).log_sse <= min(costs) * 1.001


def test_scaling_the_values_scales_the_offset() -> None:
    curve = CURVES["ASVD"].curve
    larger = curve.with_logs(curve.log_N + 400)
    fit, scaled = (form(RISING, c).fit(c) for c in (curve, larger))
    assert scaled.log_sse == pytest.approx(fit.log_sse, rel=1e-6)
    assert np.log(scaled.params["dense"]) == pytest.approx(np.log(fit.params["dense"]) + 400)


def test_an_offset_above_the_measured_values_is_fitted_all_the_same() -> None:
    curve = curve_over(5.0)
    fit = form(RISING, curve, 6.0).fit(curve)
    assert np.isfinite(fit.log_sse)
    assert fit.log_sse > 1e-3
    assert fit.params["dense"] == 6.0


def test_coefficients_count_what_is_free() -> None:
    curve = curve_over(5.0)
    assert form(RISING, curve).coefficients == 6
    assert form(RISING, curve, 5.0).coefficients == 5
    assert form(Bounds(k2=(0, 0)), curve, 5.0).coefficients == 4
