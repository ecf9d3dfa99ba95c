"""Published coefficients against the fit: by the formula, by hand, and over the ten published curves."""

import math

import numpy as np
import pytest

from workers.analysis.threshold import published
from workers.analysis.threshold.bounds import Bounds
from workers.analysis.threshold.curve import Curve
from workers.analysis.threshold.publication import Publication

# ln y = ln 6 + 0.5 ln s up to 0.4; beyond it ln 6 + 0.5 ln 0.4 + 2 (s - 0.4) + 10 (s - 0.4)².
S = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
LOGS = [
    math.log(6) + 0.5 * math.log(min(s, 0.4)) + 2 * max(s - 0.4, 0) + 10 * max(s - 0.4, 0) ** 2 for s in S
]  # fmt: skip
EXACT = Publication(6.0, 0.5, 0.4, 2.0, 10.0)


def curve(*errors: float) -> Curve:
    """The form with an error of ln y at each of the first points."""
    return Curve.of(S, np.exp(np.asarray(LOGS) + np.pad(errors, (0, len(S) - len(errors)))))


def test_the_sum_of_squares_is_that_of_the_errors_put_in() -> None:
    assert EXACT.log_sse(curve()) == pytest.approx(0.0, abs=1e-20)
    assert EXACT.log_sse(curve(0.1, -0.2, 0.0, 0.3)) == pytest.approx(0.01 + 0.04 + 0.09)


def test_the_difference_is_the_fit_minus_the_published() -> None:
    noisy = curve(0.1, -0.2, 0.0, 0.3)
    fit = published.fit(noisy, Bounds())
    told = EXACT.against(noisy, Bounds(), fit)
    assert told["log_sse"] == pytest.approx(0.14)
    assert told["difference"] == pytest.approx(fit.log_sse - 0.14)
    assert told["difference"] < 0
    assert (told["params"], told["stated_log_sse"], told["notes"]) == (EXACT.params(), None, [])


def test_coefficients_outside_the_bounds_explain_a_fit_that_is_worse() -> None:
    bounds = Bounds(b=(0.6, None), k1=(2.0000001, None), k2=(None, 9))
    told = EXACT.against(curve(), bounds, published.fit(curve(), bounds))
    assert told["difference"] > 0
    assert [note.split(" is outside")[0] for note in told["notes"]] == ["the published b", "the published k2"]


@pytest.mark.parametrize(("stated", "wrong"), [(0.14, False), (0.140009, False), (0.1411, True), (0.0, True)])
def test_a_stated_sum_that_is_not_that_of_the_coefficients_is_told(stated: float, wrong: bool) -> None:
    noisy = curve(0.1, -0.2, 0.0, 0.3)
    publication = Publication(6.0, 0.5, 0.4, 2.0, 10.0, stated_log_sse=stated)
    told = publication.against(noisy, Bounds(), published.fit(noisy, Bounds()))
    assert told["stated_log_sse"] == stated
    assert any("stated log SSE" in note for note in told["notes"]) == wrong
