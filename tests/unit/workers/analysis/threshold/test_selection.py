"""AICc and left-out error by independent formulas, and where neither exists; the rule of choice on hand-made cases."""

import numpy as np
import pytest

from tests.support.knees import RISING
from tests.unit.workers.analysis.threshold.curves import CURVES
from workers.analysis.threshold.bounds import Bounds
from workers.analysis.threshold.curve import Curve
from workers.analysis.threshold.forms import Form, FormFit
from workers.analysis.threshold.offset import PublishedWithOffset
from workers.analysis.threshold.published import PublishedForm
from workers.analysis.threshold.rivals import BrokenLine, Exponential, Logistic, PowerLaw
from workers.analysis.threshold.selection import Candidate, aicc, candidate, choose, left_out_error


def test_aicc_is_the_gaussian_likelihood_with_its_penalties() -> None:
    """-2 ln L of n Gaussian residuals at their own variance, without the constant n (ln 2π + 1)."""
    residual_N = np.random.default_rng(0).standard_normal(12)
    n, sse, parameters = 12, float((residual_N**2).sum()), 4
    log_likelihood = sum(-0.5 * np.log(2 * np.pi * sse / n) - r**2 * n / (2 * sse) for r in residual_N)
    corrected = 2 * parameters + 2 * parameters * (parameters + 1) / (n - parameters - 1)
    expected = -2 * log_likelihood + corrected - n * (np.log(2 * np.pi) + 1)
    assert aicc(n, sse, 3) == pytest.approx(expected)


def test_aicc_does_not_exist_where_points_are_too_few() -> None:
    assert aicc(7, 0.1, 5) is None
    assert aicc(8, 0.1, 5) is not None


def test_the_left_out_error_of_a_line_is_the_press_statistic() -> None:
    curve = CURVES["SLEB"].curve
    design_NK = np.column_stack([np.ones(len(curve)), curve.s_N])
    hat_NN = design_NK @ np.linalg.pinv(design_NK)
    residual_N = curve.log_N - hat_NN @ curve.log_N
    press = np.sqrt(np.mean((residual_N / (1 - np.diag(hat_NN))) ** 2))
    assert left_out_error(Exponential(), curve) == pytest.approx(press)


def test_of_many_points_fifty_are_left_out() -> None:
    s_N = np.linspace(0.01, 1, 120)
    curve = Curve(s_N, np.where(np.arange(120) % 2 == 0, 1.0, 2.0))
    left_out = []

    class Recording(Exponential):
        def fit(self, curve: Curve) -> FormFit:
            left_out.append(float(np.setdiff1d(s_N, curve.s_N)[0]))
            return super().fit(curve)

    assert (left_out_error(Recording(), curve) or 0) > 0
    assert len(left_out) == 50
    assert (left_out[0], left_out[-1]) == (s_N[0], s_N[-1])


RANGE = (0.1, 0.8)


@pytest.mark.parametrize(
    "form",
    [
        Logistic(),
        BrokenLine(),
        PublishedForm(RISING, RANGE),
        PublishedForm(Bounds(k2=(0, 0)), RANGE),
        PublishedWithOffset(RISING, RANGE),
        PublishedWithOffset(RISING, RANGE, 0.1),
    ],
    ids=lambda form: f"{form.name}-{form.coefficients}",
)
def test_a_form_predicts_a_point_left_out_only_where_more_points_than_coefficients_remain(form: Form) -> None:
    rng = np.random.default_rng(0)
    found = []
    for points in range(form.coefficients, form.coefficients + 4):
        s_N = np.linspace(*RANGE, points)
        judged = candidate(form, Curve(s_N, 1 + s_N + 0.3 * rng.standard_normal(points)))
        found.append((judged.left_out_error is not None, judged.aicc is not None))
    assert found == [(False, False), (False, False), (True, False), (True, True)]


@pytest.mark.parametrize("seed", [0, 1])
def test_an_offset_that_adds_nothing_predicts_points_left_out_no_better(seed: int) -> None:
    """A noisy exponential: both forms fit it alike, and what they miss is the first point, by the power law."""
    s_N = np.linspace(*RANGE, 8)
    curve = Curve(s_N, 1.6 + 3 * s_N + 0.005 * np.random.default_rng(seed).standard_normal(8))
    without, over = PublishedForm(RISING, RANGE), PublishedWithOffset(RISING, RANGE)
    assert over.fit(curve).log_sse == pytest.approx(without.fit(curve).log_sse, rel=0.01)
    assert left_out_error(over, curve) == pytest.approx(left_out_error(without, curve), rel=0.05)


def made(name: str, score: float | None, error: float | None) -> Candidate:
    return Candidate(Exponential(name=name), FormFit({}, 1.0, lambda s_N: s_N), score, lambda: error)


@pytest.mark.parametrize(
    ("candidates", "chosen"),
    [
        ([made("a", 10.0, 1.0), made("b", 13.0, 0.1)], "a"),  # clearly the least AICc
        ([made("a", 10.0, 1.0), made("b", 11.9, 0.1)], "b"),  # as good: the left-out error decides
        ([made("a", 10.0, 1.0), made("b", None, 0.1)], "a"),  # no AICc: cannot be chosen
        ([made("a", None, 1.0), made("b", None, 0.1)], "b"),  # none has: the left-out error alone
        ([made("a", None, None), made("b", None, 0.1)], "b"),  # without left-out error: cannot be chosen by it
        ([made("a", None, 0.1), made("b", None, None)], "a"),
    ],
)
def test_the_rule_of_choice(candidates: list[Candidate], chosen: str) -> None:
    assert choose(candidates).form.name == chosen


def test_of_forms_that_too_few_points_judge_none_is_chosen() -> None:
    with pytest.raises(ValueError, match="too few points"):
        choose([made("a", None, None), made("b", None, None)])


@pytest.mark.parametrize("form", [PowerLaw(), Exponential(), Logistic(), BrokenLine()], ids=lambda form: form.name)
def test_each_rival_wins_on_noisy_curves_of_its_own(form: PowerLaw | Exponential | Logistic | BrokenLine) -> None:
    s_N = np.linspace(0.1, 0.8, 15)
    truth_N = {
        "power_law": 2 + 0.5 * np.log(s_N),
        "exponential": 1.5 + 4 * s_N,
        "logistic": 1.6 + 3 / (1 + np.exp(-20 * (s_N - 0.5))),
        "broken_line": 1 + s_N + 10 * np.maximum(s_N - 0.45, 0),
    }[form.name]
    won = 0
    for seed in range(6):
        curve = Curve(s_N, truth_N + 0.02 * np.random.default_rng(seed).standard_normal(15))
        candidates = [candidate(rival, curve) for rival in (PowerLaw(), Exponential(), Logistic(), BrokenLine())]
        won += choose(candidates).form.name == form.name
    assert won >= 5
