"""AICc and left-out error by independent formulas; the rule of choice on hand-made cases."""

import numpy as np
import pytest

from tests.unit.workers.diagnosis.threshold.curves import CURVES
from workers.diagnosis.threshold.curve import Curve
from workers.diagnosis.threshold.forms import FormFit
from workers.diagnosis.threshold.rivals import BrokenLine, Exponential, Logistic, PowerLaw
from workers.diagnosis.threshold.selection import Candidate, aicc, candidate, choose, left_out_error


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
    assert left_out_error(Exponential(), curve, Exponential().fit(curve)) == pytest.approx(press)


def test_of_many_points_fifty_are_left_out() -> None:
    s_N = np.linspace(0.01, 1, 120)
    curve = Curve(s_N, np.where(np.arange(120) % 2 == 0, 1.0, 2.0))
    left_out = []

    class Recording(Exponential):
        def refit(self, curve: Curve, near: FormFit) -> FormFit:
            left_out.append(float(np.setdiff1d(s_N, curve.s_N)[0]))
            return super().refit(curve, near)

    assert left_out_error(Recording(), curve, Exponential().fit(curve)) > 0
    assert len(left_out) == 50
    assert (left_out[0], left_out[-1]) == (s_N[0], s_N[-1])


def made(name: str, score: float | None, error: float) -> Candidate:
    return Candidate(Exponential(name=name), FormFit({}, 1.0, lambda s_N: s_N), score, error)


@pytest.mark.parametrize(
    ("candidates", "chosen"),
    [
        ([made("a", 10.0, 1.0), made("b", 13.0, 0.1)], "a"),  # clearly the least AICc
        ([made("a", 10.0, 1.0), made("b", 11.9, 0.1)], "b"),  # as good: the left-out error decides
        ([made("a", 10.0, 1.0), made("b", None, 0.1)], "a"),  # no AICc: cannot be chosen
        ([made("a", None, 1.0), made("b", None, 0.1)], "b"),  # none has: the left-out error alone
    ],
)
def test_the_rule_of_choice(candidates: list[Candidate], chosen: str) -> None:
    assert choose(candidates).form.name == chosen


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
