"""What is expected of a treatment before it is tried, corrected by what its trials gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from workers.diagnosis.mitigate.treatments import Arm, Plan

# The prior counts as much as one trial.
_WEIGHT: Final = 1.0
# A trial moves the expectation by this factor at most: one surprise is no proof.
_RATIOS: Final = (-0.5, 2.5)
# What an untried treatment is given beyond its prior, as a share of it: the bandit's optimism.
_OPTIMISM: Final = 0.25
# Of what a second treatment would save of the whole damage, it saves this much of what the first one left.
_SECOND: Final = 0.7
_MOST: Final = 0.99


@dataclass
class Beliefs:
    """The share of the KL that a treatment takes away: prior times a factor that all its knobs have in common.

    The factor is the mean of observed over prior shares, the prior counted as one observation of 1, plus an optimism
    that falls with the number of trials. So one trial of a treatment says something of all its settings.
    """

    _ratios: dict[str, list[float]] = field(default_factory=dict)

    def share(self, arm: Arm) -> float:
        """What this arm is expected to take away of the KL that it finds."""
        seen = self._ratios.get(arm.name, [])
        factor = (_WEIGHT + sum(seen)) / (_WEIGHT + len(seen)) + _OPTIMISM / (1 + len(seen))
        return max(-1.0, min(_MOST, arm.prior * factor))

    def left(self, plan: Plan, known: Plan, kl: float) -> float:
        """KL expected of `plan`, where `known` (a part of it) was measured at `kl`."""
        for arm in plan:
            if arm not in known:
                kl *= 1 - self.share(arm) * (_SECOND if known else 1.0)
        return kl

    def observe(self, arm: Arm, before: float, after: float, *, first: bool) -> None:
        """That this arm, put on a recipe of KL `before`, gave `after`."""
        if before <= 0 or arm.prior <= 0:
            return
        ratio = (1 - after / before) / (arm.prior * (1.0 if first else _SECOND))
        self._ratios.setdefault(arm.name, []).append(min(_RATIOS[1], max(_RATIOS[0], ratio)))


def plan_key(plan: Sequence[Arm]) -> str:
    """Names a plan among all."""
    return " + ".join(arm.key for arm in plan) or "untreated"
