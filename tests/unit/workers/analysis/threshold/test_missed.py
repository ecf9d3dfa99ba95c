"""Transitions of shapes that the published form cannot follow, and straight curves that must not be taken for them."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.support.knees import RISING
from workers.analysis.threshold.bounds import Bounds
from workers.analysis.threshold.curve import Array, Curve
from workers.analysis.threshold.forms import Form
from workers.analysis.threshold.line import LineForm
from workers.analysis.threshold.missed import CLEARLY, Missed, missed_transition
from workers.analysis.threshold.offset import PublishedWithOffset
from workers.analysis.threshold.rivals import BrokenLine, Exponential, Logistic, PowerLaw
from workers.analysis.threshold.selection import candidate

SATURATING = Curve(
    np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.8, 0.9]),
    3 + np.array([0, 0.02, 0.1, 0.5, 2.3, 5.5, 7.3, 8.4, 9.3, 9.6]),
)
S_N = np.linspace(0.1, 0.8, 12)
STRAIGHT: dict[str, Callable[[Array], Array]] = {
    "constant": lambda s_N: 0 * s_N + 1.7,
    "power law": lambda s_N: 2 + 0.3 * np.log(s_N),
    "exponential": lambda s_N: 1.5 + 3 * s_N,
    "line": lambda s_N: np.log(5 + 20 * s_N),
}


def logistic_curve(seed: int) -> Curve:
    """12 points that double their perplexity many times around 0.3 and stay there."""
    s_N = np.linspace(0.05, 0.95, 12)
    noise_N = 0.02 * np.random.default_rng(seed).standard_normal(12)
    return Curve(s_N, 2.5 + 7 / (1 + np.exp(-30 * (s_N - 0.3))) + noise_N)


def found(curve: Curve, bounds: Bounds, *, offset: bool = True) -> Missed | None:
    forms: list[Form] = [PowerLaw(), Exponential(), LineForm(), Logistic(), BrokenLine()]
    if offset:
        forms.append(PublishedWithOffset(bounds, bounds.knee_range(curve)))
    return missed_transition([candidate(form, curve) for form in forms])


def test_a_curve_that_saturates_is_shown_to_turn_by_a_logistic_curve() -> None:
    missed = found(SATURATING, RISING)
    assert missed.rival.form.name == "logistic"
    assert missed.rival.fit.params["midpoint"] == pytest.approx(0.578, abs=0.001)
    assert missed.gain == pytest.approx(14.6 + 32.2, abs=0.1), "AICc of the exponential minus that of the logistic"


def test_a_step_of_low_noise_is_shown_whatever_the_seed() -> None:
    for seed in range(3):
        missed = found(logistic_curve(seed), Bounds(), offset=seed == 0)
        assert missed.rival.fit.params["midpoint"] == pytest.approx(0.3, abs=0.01)
        assert missed.gain > 3 * CLEARLY


def test_a_slope_that_falls_at_a_knee_is_shown_by_a_broken_line() -> None:
    noise_N = 0.02 * np.random.default_rng(3).standard_normal(12)
    missed = found(Curve(S_N, 1.6 + 12 * np.minimum(S_N, 0.45) + noise_N), RISING)
    assert missed.rival.form.name == "broken_line"
    assert missed.rival.fit.params["knee"] == pytest.approx(0.45, abs=0.01)


@pytest.mark.parametrize("growth", [1, 3], ids=["even noise", "noise that grows threefold"])
@pytest.mark.parametrize("shape", list(STRAIGHT))
def test_at_least_95_per_cent_of_straight_curves_show_no_turn(shape: str, growth: int) -> None:
    rng, shown = np.random.default_rng(7), 0
    for _ in range(40):
        noise_N = np.linspace(0.03, 0.03 * growth, 12) * rng.standard_normal(12)
        shown += found(Curve(S_N, STRAIGHT[shape](S_N) + noise_N), RISING, offset=False) is not None
    assert shown <= 2


def test_the_form_over_an_offset_feigns_no_turn_in_a_line() -> None:
    """It holds the line itself, with a knee that does nothing."""
    rng = np.random.default_rng(2)
    s_N = np.linspace(0.1, 0.8, 24)
    for _ in range(2):
        assert found(Curve(s_N, STRAIGHT["line"](s_N) + 0.01 * rng.standard_normal(24)), RISING) is None


def test_a_broken_line_would_win_clearly_if_a_line_were_not_counted_as_straight() -> None:
    s_N = np.linspace(0.1, 0.8, 24)
    curve = Curve(s_N, STRAIGHT["line"](s_N) + 0.01 * np.random.default_rng(0).standard_normal(24))
    broken, exponential, power = (candidate(form, curve).aicc for form in (BrokenLine(), Exponential(), PowerLaw()))
    assert broken is not None and exponential is not None and power is not None
    assert min(exponential, power) - broken > CLEARLY
    assert found(curve, RISING, offset=False) is None


def test_too_few_points_for_the_aicc_of_a_rival_show_nothing() -> None:
    few = Curve(SATURATING.s_N[2:8], SATURATING.log_N[2:8])
    assert found(few, RISING) is None
