"""Each rival recovers its own curves and agrees with scipy's general solver on a measured one."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize, stats

from tests.unit.workers.analysis.threshold.curves import CURVES
from workers.analysis.threshold.curve import Array, Curve
from workers.analysis.threshold.forms import Form
from workers.analysis.threshold.rivals import BrokenLine, Exponential, Logistic, PowerLaw

S_N = np.linspace(0.1, 0.8, 15)


def logistic(s_N: Array, floor: float, rise: float, rate: float, midpoint: float) -> Array:
    return np.asarray(floor + rise / (1 + np.exp(-rate * (s_N - midpoint))))


@pytest.mark.parametrize(
    ("form", "log_N", "params"),
    [
        (PowerLaw(), 2 + 0.3 * np.log(S_N), {"log_a": 2, "b": 0.3}),
        (Exponential(), 1.5 + 4 * S_N, {"log_a": 1.5, "k": 4}),
        (BrokenLine(), 1 + S_N + 8 * np.maximum(S_N - 0.52, 0), {"slope_below": 1, "slope_above": 9, "knee": 0.52}),
        (Logistic(), logistic(S_N, 1.6, 3, 20, 0.5), {"floor": 1.6, "rise": 3, "rate": 20, "midpoint": 0.5}),
        (Logistic(), logistic(S_N, 1.6, 5, 9, 0.9), {"floor": 1.6, "rise": 5, "rate": 9, "midpoint": 0.9}),
    ],
)
def test_a_form_recovers_a_curve_of_its_own(form: Form, log_N: Array, params: dict[str, float]) -> None:
    fit = form.fit(Curve(S_N, log_N))
    assert fit.log_sse < 1e-9
    assert {name: fit.params[name] for name in params} == pytest.approx(params, rel=2e-3)
    assert fit.predict(S_N) == pytest.approx(log_N, abs=1e-4)


def test_straight_forms_are_scipys_regressions() -> None:
    curve = CURVES["SLEB"].curve
    for form, x_N, name in ((PowerLaw(), np.log(curve.s_N), "b"), (Exponential(), curve.s_N, "k")):
        oracle = stats.linregress(x_N, curve.log_N)
        fit = form.fit(curve)
        assert fit.params == pytest.approx({"log_a": oracle.intercept, name: oracle.slope})
        residual_N = curve.log_N - oracle.intercept - oracle.slope * x_N
        assert fit.log_sse == pytest.approx((residual_N**2).sum())


@pytest.mark.parametrize("left_out", [None, 0, 4, -1])
@pytest.mark.parametrize("name", ["SLEB", "wanda", "sparsegpt_owl", "RIA"])
def test_the_logistic_is_as_good_as_a_general_solver_from_many_starts(name: str, left_out: int | None) -> None:
    curve = CURVES[name].curve if left_out is None else CURVES[name].curve.without(left_out)
    span = curve.s_N[-1] - curve.s_N[0]
    lower = [-20, -2000, 0.5 / span, curve.s_N[0]]
    upper = [20, 2000, 400 / span, curve.s_N[-1] + span]

    def residual(place: Array) -> Array:
        return np.asarray(logistic(curve.s_N, *place) - curve.log_N)

    costs = []
    for midpoint in np.linspace(lower[3], upper[3], 7)[1:-1]:
        for rate in (3 / span, 10 / span):
            start = [curve.log_N[0], 5.0, rate, midpoint]
            solved = optimize.least_squares(residual, start, bounds=(lower, upper), x_scale="jac")
            costs.append(2 * solved.cost)
    assert Logistic().fit(curve).log_sse <= min(costs) * (1 + 1e-6)


@pytest.mark.parametrize("form", [PowerLaw(), Exponential(), BrokenLine(), Logistic()], ids=lambda form: form.name)
@pytest.mark.parametrize("shift", [0.0, 50.0])
def test_the_sum_of_squares_is_that_of_the_prediction_at_any_level(form: Form, shift: float) -> None:
    curve = replace(CURVES["SLEB"].curve, log_N=CURVES["SLEB"].curve.log_N + shift)
    fit = form.fit(curve)
    assert fit.log_sse == pytest.approx(((fit.predict(curve.s_N) - curve.log_N) ** 2).sum(), rel=1e-6)
    assert fit.log_sse == pytest.approx(form.fit(CURVES["SLEB"].curve).log_sse, rel=1e-5)


def test_a_constant_curve_breaks_no_form() -> None:
    curve = Curve(S_N, np.full(15, 1.7))
    forms: list[Form] = [PowerLaw(), Exponential(), BrokenLine(), Logistic()]
    for form in forms:
        assert form.fit(curve).log_sse < 1e-20
