"""A transition that the published form cannot follow, and another form can.

The published form's test asks whether it describes a curve better than a straight form. Where its shape or its bounds
keep it from the curve (one that saturates; a bound on s0) it does not, and that is no sign of a straight curve. So a
curve is called straight only where no rival with a transition describes it clearly better than every straight form: by
more than 20 of AICc. Beyond 10 the worse form has essentially no support (Burnham and Anderson, Model Selection and
Multimodel Inference, §2.6), if noise is even, as AICc takes it; where it grows threefold along a straight curve of 120
points, one in twenty passes 10 and hardly one 20. docs/threshold.md has the rates.

Straight are a power law, an exponential and a line in s itself, y = c + m s. The line is no rival: its logarithm bends,
and a curve that is nothing but a line is not to be taken for a broken one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from workers.diagnosis.threshold.curve import Curve
from workers.diagnosis.threshold.selection import Candidate, aicc, choose

CLEARLY = 20.0
_LINE_COEFFICIENTS = 2
# Of ln y(last)/y(first). The ends of a line of positive values that differ by more leave one point above the rest.
_MOST_RISE = 40.0
_RISES = 161


@dataclass(frozen=True)
class Missed:
    """The rival that shows a transition, and by how much its AICc is lower than that of the best straight form."""

    rival: Candidate
    gain: float


def missed_transition(curve: Curve, rivals: Sequence[Candidate]) -> Missed | None:
    """Of the rivals with a transition the one that describes the curve best, where it does so clearly better than
    every straight form; None where none does, or too few points leave none an AICc."""
    turning = [rival for rival in rivals if rival.form.transition and rival.aicc is not None]
    if not turning:
        return None
    best = choose(turning)
    scores = [rival.aicc for rival in rivals if not rival.form.transition]
    scores.append(aicc(len(curve), line_sse(curve), _LINE_COEFFICIENTS))
    straight = [score for score in scores if score is not None]
    if best.aicc is None or not straight:
        return None
    gain = min(straight) - best.aicc
    return Missed(best, gain) if gain > CLEARLY else None


def line_sse(curve: Curve) -> float:
    """Sum of squared residuals of ln y of the best line y = c + m s that is positive over the measured range."""
    along_N = (curve.s_N - curve.s_N[0]) / (curve.s_N[-1] - curve.s_N[0])

    with np.errstate(divide="ignore"):  # -inf at the ends, where the other one's share is all
        first_N, last_N = np.log1p(-along_N), np.log(along_N)

    def sse(rise: float) -> float:
        residual_N = curve.log_N - np.logaddexp(first_N, last_N + rise)
        return float(((residual_N - residual_N.mean()) ** 2).sum())

    rise_G = np.linspace(-_MOST_RISE, _MOST_RISE, _RISES)
    best = rise_G[int(np.argmin([sse(rise) for rise in rise_G]))]
    step = rise_G[1] - rise_G[0]
    found = optimize.minimize_scalar(sse, bounds=(best - step, best + step), method="bounded", options={"xatol": 1e-9})
    return min(float(found.fun), sse(best))
