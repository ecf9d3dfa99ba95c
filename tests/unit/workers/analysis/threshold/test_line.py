"""A line in y fitted to ln y, against scipy's least squares."""

import numpy as np
import pytest
from scipy import optimize

from workers.analysis.threshold.curve import Array, Curve
from workers.analysis.threshold.line import Line, LineForm

S_N = np.linspace(0.1, 0.8, 12)


def sse_of(log_N: Array, start: tuple[float, float]) -> float:
    """By the values at both ends."""

    def residual(ends: Array) -> Array:
        return np.asarray(np.log(ends[0] + (ends[1] - ends[0]) * (S_N - 0.1) / 0.7) - log_N)

    tight = dict.fromkeys(("xtol", "ftol", "gtol"), 1e-14)
    return float(2 * optimize.least_squares(residual, start, bounds=(1e-6, np.inf), **tight).cost)


@pytest.mark.parametrize(("level", "slope"), [(5.0, 20.0), (5.0, -5.0), (0.2, 40.0), (7.0, 0.0)])
def test_the_line_is_the_least_squares_line_of_ln_y(level: float, slope: float) -> None:
    log_N = np.log(level + slope * S_N) + 0.05 * np.random.default_rng(1).standard_normal(12)
    rise, sse = Line(S_N).fit(Curve(S_N, log_N))
    assert sse == pytest.approx(sse_of(log_N, (level + slope * 0.1, level + slope * 0.8)), rel=1e-6)
    assert rise == pytest.approx(np.log((level + slope * 0.8) / (level + slope * 0.1)), abs=0.2)


def test_a_line_is_met_exactly_however_steep() -> None:
    for rise in (-12.0, 0.0, 1.3, 25.0):
        along_N = (S_N - 0.1) / 0.7
        exact = Curve(S_N, np.log((1 - along_N) + along_N * np.exp(rise)))
        assert Line(S_N).fit(exact)[1] < 1e-10


@pytest.mark.parametrize(("low", "high"), [(5.0, 9.0), (7.0, 21.0), (15.0, 85.0), (21.0, 7.0)])
@pytest.mark.parametrize("noise", [0.002, 0.03, 0.2])
def test_many_curves_around_a_line_are_refitted_as_each_by_itself(low: float, high: float, noise: float) -> None:
    log_BN = np.log(np.linspace(low, high, 12)) + noise * np.random.default_rng(2).standard_normal((40, 12))
    expected = [sse_of(log_N, (low, high)) for log_N in log_BN]
    np.testing.assert_allclose(Line(S_N).refitted(log_BN, float(np.log(high / low))), expected, rtol=1e-5)


@pytest.mark.parametrize(("level", "slope"), [(5.0, 20.0), (30.0, -20.0)])
def test_as_a_form_it_has_its_level_and_slope_and_predicts_beyond_its_points(level: float, slope: float) -> None:
    exact = LineForm().fit(Curve(S_N, np.log(level + slope * S_N)))
    assert exact.params == pytest.approx({"level": level, "slope": slope}, rel=1e-4)
    assert exact.predict(np.array([0.05, 0.9])) == pytest.approx(
        np.log(level + slope * np.array([0.05, 0.9])), rel=1e-4
    )


def test_where_the_line_is_no_longer_positive_its_logarithm_is_finite_and_far_below() -> None:
    found = LineForm().fit(Curve(S_N, np.log(-0.9 + 10 * S_N)))
    assert found.predict(np.array([0.05]))[0] < np.log(0.1) - 20
