"""A transition that the published form cannot follow, and another form can.

The published form's test asks whether it describes a curve better than a straight form. Where its shape or its bounds
keep it from the curve (one that saturates; a bound on s0) it does not, and that is no sign of a straight curve. So a
curve is called straight only if no rival with a transition describes it clearly better than every straight form: by
more than 20 of AICc. Beyond 10 the worse form has essentially no support if noise is even, as AICc takes it (Burnham
and Anderson, Model Selection and Multimodel Inference, §2.6). If noise grows threefold along a straight curve of 120
points, one in twenty passes 10 and hardly one 20. The rates are in docs/threshold.md.

Straight are a power law, an exponential and a line in y (`line`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workers.analysis.threshold.selection import Candidate, choose

CLEARLY = 20.0


@dataclass(frozen=True)
class Missed:
    """The rival that shows a transition, and by how much its AICc is lower than that of the best straight form."""

    rival: Candidate
    gain: float


def missed_transition(rivals: Sequence[Candidate]) -> Missed | None:
    """Of the rivals with a transition the one that describes the curve best, if it does so clearly better than every
    straight form. None if none does, or if too few points leave none an AICc."""
    turning = [rival for rival in rivals if rival.form.transition and rival.aicc is not None]
    if not turning:
        return None
    best = choose(turning)
    straight = [rival.aicc for rival in rivals if not rival.form.transition and rival.aicc is not None]
    if best.aicc is None or not straight:
        return None
    gain = min(straight) - best.aicc
    return Missed(best, gain) if gain > CLEARLY else None
