"""Which form describes a curve best: AICc, and the error at points left out.

AICc is Akaike's criterion with the small-sample term (Hurvich and Tsai, Biometrika 76, 1989), for Gaussian errors of
ln y:

    AICc = n ln(SSE/n) + 2K + 2K(K+1)/(n - K - 1)           K: coefficients and the variance

Curves have 7 to 35 points and forms 2 to 6 coefficients, where plain AIC takes the largest form nearly always. With n
≤ K + 1 the criterion does not exist and the form cannot be chosen: it would fit anything. BIC has no such term:
at ten points its penalty on six coefficients is a third of AICc's.

Differences of AICc up to 2 count for little (Burnham and Anderson, Model Selection and Multimodel Inference, §2.6). So
among forms that near to the best, the one that predicts left-out points best is chosen.

The error at left-out points of a form with so many coefficients exists where the points that remain are more than
these. With just as many, the fit to them would run through all. As a rule it does so in several ways if a knee, a
midpoint or an offset is among the coefficients. What it says of the point left out is then the search's choice among
these ways, not the form's prediction. A form with an AICc always has the error, for that takes one point more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from workers.analysis.threshold.curve import ROUNDING, Curve
from workers.analysis.threshold.forms import Form, FormFit

INDISTINCT = 2.0
_MOST_LEFT_OUT = 50


@dataclass(frozen=True)
class Candidate:
    """A form, its fit and its AICc; None: too few points."""

    form: Form
    fit: FormFit
    aicc: float | None
    leave_out: Callable[[], float | None]

    @cached_property
    def left_out_error(self) -> float | None:
        """Root mean square error of ln y at left-out points; None: too few points.

        It takes as many fits as there are points, so the first who asks waits for it.
        """
        return self.leave_out()


def candidate(form: Form, curve: Curve, check: Callable[[], None] = lambda: None) -> Candidate:
    """A form fitted and judged. `check` is called before each fit with a point left out and may raise to stop."""
    fit = form.fit(curve)
    score = aicc(len(curve), fit.log_sse, form.coefficients)
    return Candidate(form, fit, score, partial(left_out_error, form, curve, check))


def aicc(points: int, log_sse: float, coefficients: int) -> float | None:
    """AICc of a fit with so many coefficients, the variance not among them; None for too few points."""
    parameters = coefficients + 1
    spare = points - parameters - 1
    if spare <= 0:
        return None
    variance = log_sse / points + ROUNDING**2
    return points * math.log(variance) + 2 * parameters + 2 * parameters * (parameters + 1) / spare


def left_out_error(form: Form, curve: Curve, check: Callable[[], None] = lambda: None) -> float | None:
    """Root mean square error of ln y at points left out, each predicted by the form fitted to all others alone.

    Every point is left out in turn; of more than 50 points, 50 evenly spread ones. None if the others are not more
    than the form's coefficients.
    """
    if len(curve) - 1 <= form.coefficients:
        return None
    left_out = np.unique(np.linspace(0, len(curve) - 1, min(len(curve), _MOST_LEFT_OUT)).round().astype(int))
    errors = []
    for index in left_out:
        check()
        said = form.fit(curve.without(index)).predict(curve.s_N[index : index + 1])[0]
        errors.append(float(said - curve.log_N[index]))
    return float(np.sqrt(np.mean(np.square(errors))))


def choose(candidates: Sequence[Candidate]) -> Candidate:
    """Of the forms within 2 of the least AICc the one with the least error at left-out points.

    Where AICc exists for none, the left-out error alone decides, and a form without it cannot be chosen. Raises
    ValueError if all are without.
    """
    scored = [(c.aicc, c) for c in candidates if c.aicc is not None]
    if not scored:
        return _least_left_out(candidates)
    least = min(score for score, _ in scored)
    near = [c for score, c in scored if score <= least + INDISTINCT]
    return near[0] if len(near) == 1 else _least_left_out(near)


def _least_left_out(candidates: Sequence[Candidate]) -> Candidate:
    told = [(c.left_out_error, c) for c in candidates if c.left_out_error is not None]
    if not told:
        raise ValueError("too few points to choose among these forms")
    return min(told, key=lambda pair: pair[0])[1]
