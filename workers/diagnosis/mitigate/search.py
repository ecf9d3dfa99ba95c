"""Which recipe is tried next: a bandit by expected nats a byte, and successive halving over what a trial costs.

There are two rungs. The *cheap* one fits a treatment on a quarter of the text, without training (norms: a quarter of
it), and measures it on a part of the documents. Two thirds of the trials go there. The better half goes on to the
*full* rung; only a recipe of that rung can be chosen.

The next cheap trial has most expected nats per byte beyond the best recipe of as few bytes. Single treatments come
first, then treatments on top of those on the front. Of equals the quickest comes first.

Nothing here measures: `next` proposes, `tell` learns. The same answers give the same proposals, so an attempt that
finds the measurements of an earlier one goes the same way.

Ground: successive halving (Jamieson & Talwalkar 2016), optimism under uncertainty as in UCB (Auer et al. 2002). The
measure (nats a byte beyond the front) and the common factor of a treatment's knobs are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from app.kinds.mitigate.least_size import SLACK
from workers.diagnosis.mitigate.treatments import Arm, Plan, with_arm

Rung = Literal["cheap", "full"]
_EXPLORE: Final = 2 / 3
# The most treatments in one recipe.
_DEEPEST: Final = 3
# Bytes that are counted at least, as a share of the candidate's: a treatment for nothing is not worth infinitely much.
_FREE: Final = 0.002
# Below this share of the candidate's KL a trial is expected to be worth nothing.
_WORTH: Final = 0.002

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


def plan_name(plan: Sequence[Arm]) -> str:
    """Shows a plan from all others; empty for the candidate as it is. People read `treatments.described`."""
    return " + ".join(arm.key for arm in plan)


@dataclass(frozen=True)
class Proposal:
    """What to make and measure next. `expected_kl` on the rung's documents, nats; `expected_bytes` of the model."""

    plan: Plan
    rung: Rung
    expected_kl: float
    expected_bytes: int


@dataclass(frozen=True)
class Measured:
    """What a proposal gave: mean KL on its rung's documents and bytes of the model; None: it could not be made."""

    kl: float
    bytes: int


@dataclass
class Search:
    """`candidate` holds the untreated candidate's measurements by rung. `fits`: whether so many bytes are within the
    budget. `possible`: whether a plan's recipe can be made at all. `seconds`: about how long that takes for a cheap
    trial. Of plans of equal promise the quickest is tried first."""

    arms: Sequence[Arm]
    candidate: dict[Rung, Measured]
    trials: int
    fits: Callable[[float], bool]
    possible: Callable[[Plan], bool] = lambda plan: True
    seconds: Callable[[Plan], float] = lambda plan: 0.0
    beliefs: Beliefs = field(default_factory=Beliefs)
    _seen: dict[Rung, dict[Plan, Measured | None]] = field(default_factory=lambda: {"cheap": {}, "full": {}})

    @property
    def spent(self) -> int:
        """Trials made."""
        return sum(len(found) for found in self._seen.values())

    @property
    def explored(self) -> int:
        """How many trials the cheap rung has."""
        return max(1, round(self.trials * _EXPLORE))

    def next(self) -> Proposal | None:
        """The next trial, None if the trials are spent or none is expected to be worth one."""
        if self.spent >= self.trials:
            return None
        if len(self._seen["cheap"]) < self.explored and (proposal := self._explore()) is not None:
            return proposal
        # Exploration may go on with trials that promotion leaves over.
        return self._promote() or self._explore()

    def tell(self, proposal: Proposal, measured: Measured | None) -> None:
        """What came of a proposal."""
        found = self._seen[proposal.rung]
        found[proposal.plan] = measured
        if measured is None or proposal.rung != "cheap":
            return
        for arm in proposal.plan:
            rest = tuple(one for one in proposal.plan if one != arm)
            before = self.candidate["cheap"] if not rest else found.get(rest)
            if before is not None:
                self.beliefs.observe(arm, before.kl, measured.kl, first=not rest)

    def promotable(self) -> list[Plan]:
        """Plans of the cheap rung that saved something, best first: front by front, on each by nats a byte."""
        untreated = self.candidate["cheap"]
        left = {
            plan: found
            for plan, found in self._seen["cheap"].items()
            if found is not None and found.kl < untreated.kl and self.fits(found.bytes)
        }
        # Settings that give the very same model count once.
        twins: dict[Measured, Plan] = {}
        for plan in sorted(left, key=plan_name):
            twins.setdefault(left[plan], plan)
        left = {plan: found for found, plan in twins.items()}
        order: list[Plan] = []
        while left:
            top = [plan for plan, one in left.items() if not any(_beats(other, one) for other in left.values())]
            order += sorted(top, key=lambda plan: (-self._worth(left[plan]), plan_name(plan)))
            for plan in top:
                del left[plan]
        return order

    def _worth(self, found: Measured) -> float:
        """Nats saved, times how few bytes it takes beyond the candidate's: what keeps both ends of a front."""
        untreated = self.candidate["cheap"]
        return (untreated.kl - found.kl) / math.pow(self._price(found.bytes), 0.25)

    def _promote(self) -> Proposal | None:
        order = self.promotable()
        half = max(1, (len(order) + 1) // 2)
        for plan in order[: max(half, self.trials - self.explored)]:
            if plan not in self._seen["full"]:
                cheap = self._seen["cheap"][plan]
                if cheap is None:
                    continue
                ratio = self.candidate["full"].kl / max(1e-12, self.candidate["cheap"].kl)
                return Proposal(plan, "full", cheap.kl * ratio, cheap.bytes)
        return None

    def _explore(self) -> Proposal | None:
        untreated = self.candidate["cheap"]
        known: dict[Plan, Measured] = {(): untreated}
        known |= {plan: found for plan, found in self._seen["cheap"].items() if found is not None}
        best: tuple[tuple[float, float, str], Proposal] | None = None
        for parent in self._parents(known):
            for arm in self.arms:
                if any(one.name == arm.name for one in parent):
                    continue
                plan = with_arm(parent, arm)
                if plan in self._seen["cheap"]:
                    continue
                size = known[parent].bytes + arm.bytes
                if not self.fits(size / SLACK):
                    continue
                kl = self.beliefs.left(plan, parent, known[parent].kl)
                gain = self._standing(known, size) - kl
                if gain < _WORTH * untreated.kl or not self.possible(plan):
                    continue
                rate = gain / self._price(size)
                if best is not None and rate < best[0][0]:
                    continue
                rank = (rate, -self.seconds(plan), plan_name(plan))
                if best is None or rank > best[0]:
                    best = (rank, Proposal(plan, "cheap", kl, round(size)))
        return None if best is None else best[1]

    def _parents(self, known: dict[Plan, Measured]) -> list[Plan]:
        """The untreated candidate, and what is on the front and may take another treatment."""
        front = [
            plan
            for plan, one in known.items()
            if plan and len(plan) < _DEEPEST and not any(_beats(other, one) for other in known.values())
        ]
        return [(), *front]

    def _standing(self, known: dict[Plan, Measured], size: float) -> float:
        """The best KL that is had for as many bytes."""
        return min(found.kl for found in known.values() if found.bytes <= max(size, self.candidate["cheap"].bytes))

    def _price(self, size: float) -> float:
        base = self.candidate["cheap"].bytes
        return max(size - base, _FREE * base, 1.0)


def _beats(one: Measured, other: Measured) -> bool:
    return one.kl <= other.kl and one.bytes <= other.bytes and (one.kl < other.kl or one.bytes < other.bytes)
