"""The published form over a dense value: nests the published form, finds an offset, keeps bounds."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize

from tests.support.knees import RISING
from tests.unit.workers.analysis.threshold.curves import CURVES
from workers.analysis.threshold import published
from workers.analysis.threshold.bounds import Bounds
from workers.analysis.threshold.curve import Array, Curve
from workers.analysis.threshold.offset import PublishedWithOffset

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


def test_with_a_free_offset_it_is_never_worse_than_without() -> None:
    for case in CURVES.values():
        fit = form(case.bounds, case.curve).fit(case.curve)
        assert fit.log_sse <= published.fit(case.curve, case.bounds).log_sse * (1 + 1e-9)
        for name in ("b", "s0", "k1", "k2"):
            low, high = getattr(case.bounds, name)
            assert low is None or fit.params[name] >= low - 1e-9
            assert high is None or fit.params[name] <= high + 1e-9
        assert 0 <= fit.params["dense"] < np.exp(case.curve.log_N.min())


def general_solver(curve: Curve, bounds: Bounds, knee_range: tuple[float, float]) -> float:
    """The least sum of squares that scipy finds from many starts, its derivatives by differences."""
    least = float(np.exp(curve.log_N.min()))
    lower_K, upper_K = bounds.box()
    lower = np.array([*lower_K, knee_range[0], 0.0])
    box = (lower, np.maximum([*upper_K, knee_range[1], least], lower + 1e-9))

    def residual(place: Array) -> Array:
        grown_N = np.exp(np.clip(published.basis(curve.s_N, place[4:5])[0] @ place[:4], -300, 300))
        return np.asarray(np.log(np.maximum(place[5] + grown_N, 1e-300)) - curve.log_N)

    costs = []
    for knee in np.linspace(*knee_range, 12)[1:-1]:
        for share in (0.1, 0.7, 0.98):
            rest_N = curve.log_N + np.log1p(-share * least / np.exp(curve.log_N))
            line_K, *_ = np.linalg.lstsq(published.basis(curve.s_N, np.array([knee]))[0], rest_N)
            start = np.clip([*line_K, knee, share * least], *box)
            costs.append(2 * optimize.least_squares(residual, start, bounds=box, x_scale="jac", max_nfev=150).cost)
    return min(costs)


@pytest.mark.parametrize(
    ("name", "left_out"),
    [("ASVD", None), ("ASVD", 0), ("slicegpt", 0), ("SLEB", 1), ("LLM_Pruner", 3), ("LLM_Pruner", 6)],
)
def test_a_general_solver_from_many_starts_finds_nothing_better(name: str, left_out: int | None) -> None:
    """With several local optima; in the last four cases a descent from the fit to all points ends in a worse one."""
    case = CURVES[name]
    curve = case.curve if left_out is None else case.curve.without(left_out)
    knee_range = case.bounds.knee_range(case.curve)
    fit = PublishedWithOffset(case.bounds, knee_range).fit(curve)
    assert fit.log_sse <= general_solver(curve, case.bounds, knee_range) * 1.001


def test_scaling_the_values_scales_the_offset() -> None:
    curve = CURVES["ASVD"].curve
    larger = replace(curve, log_N=curve.log_N + 400)
    fit, scaled = (form(RISING, c).fit(c) for c in (curve, larger))
    assert scaled.log_sse == pytest.approx(fit.log_sse, rel=1e-6)
    assert np.log(scaled.params["dense"]) == pytest.approx(np.log(fit.params["dense"]) + 400)


def test_an_offset_above_the_measured_values_is_fitted_all_the_same() -> None:
    curve = curve_over(5.0)
    fit = form(RISING, curve, 6.0).fit(curve)
    assert np.isfinite(fit.log_sse)
    assert fit.log_sse > 1e-3
    assert fit.params["dense"] == 6.0
