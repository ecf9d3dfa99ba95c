"""The guard of an active profile: is it worse than doing nothing, or than the version before it?

h = KL(active) - KL(other), other being the raw model or the previous version, at the same positions of one request: the
harm, nats per token. Null: whatever came before, the mean of h is at most 0. Payoff z = min(h, H)/L: clipping harm can
only delay a rollback, a benefit beyond L costs several stakes. Harm may begin at any time, so the capitals restart. The
two comparisons share α equally: a version that is never worse than either is ever rolled back with probability α at
most. This holds if its benefit stays within L on average (see `capital`).
"""

from __future__ import annotations

import math
from enum import StrEnum

from pydantic import Field

from app.contracts.base import Contract
from workers.calibration.online.capital import Capital


class Worse(StrEnum):
    """Than what the active version is worse, and so where a rollback leads."""

    RAW = "raw"
    PREVIOUS = "previous"


class GuardMemory(Contract):
    """What the guard of one activation remembers."""

    seen: int = Field(default=0, ge=0)
    harm_raw: float = Field(default=0.0, description="sum of the harm against raw, nats per token")
    raw: Capital
    previous: Capital


class GuardDecision(Contract):
    """What one request led to. `worse` null: stay."""

    worse: Worse | None
    seen: int
    mean_harm: float = Field(description="against raw, nats per token")
    e_raw: float
    e_previous: float
    level: float
    reason: str = ""


class RollbackGuard(Contract):
    """The rule of one activation. Bounds in nats per token."""

    benefit_bound: float = Field(gt=0, description="L: benefits up to here cost one stake")
    harm_bound: float = Field(gt=0, description="H: a larger harm counts as this")
    alpha: float = Field(default=0.01, gt=0, lt=1, description="probability that one that is not worse is rolled back")

    @classmethod
    def new(cls, level: float, alpha: float = 0.01) -> RollbackGuard:
        """For a raw model whose mean divergence is about `level` nats: L = level, H = 64 level."""
        return cls(benefit_bound=level, harm_bound=64 * level, alpha=alpha)

    def start(self) -> GuardMemory:
        """Nothing seen: one for each activation of a version."""
        return GuardMemory(raw=Capital.new(restarts=True), previous=Capital.new(restarts=True))

    def update(
        self, memory: GuardMemory, active: float | None, raw: float, previous: float | None = None
    ) -> tuple[GuardMemory, GuardDecision]:
        """After one request with these mean divergences (nats per token) at the same positions.

        `previous` is None if there is no other version to return to. The active version's divergence that is not
        finite (or None) is harm of H. Raises ValueError if another is not finite.
        """
        if not math.isfinite(raw) or not math.isfinite(previous or 0.0):
            raise ValueError("the divergence of what it is compared with is not finite")
        after = GuardMemory(
            seen=memory.seen + 1,
            harm_raw=memory.harm_raw + self._harm(active, raw),
            raw=memory.raw.after(self._harm(active, raw) / self.benefit_bound),
            previous=memory.previous
            if previous is None
            else memory.previous.after(self._harm(active, previous) / self.benefit_bound),
        )
        level = 2 / self.alpha
        worse, reason = None, ""
        if after.raw.value >= level:
            worse, reason = Worse.RAW, "it is worse than the model without calibration"
        elif after.previous.value >= level:
            worse, reason = Worse.PREVIOUS, "it is worse than the version before it"
        return after, GuardDecision(
            worse=worse,
            seen=after.seen,
            mean_harm=after.harm_raw / after.seen,
            e_raw=after.raw.value,
            e_previous=after.previous.value,
            level=level,
            reason=reason,
        )

    def _harm(self, active: float | None, other: float) -> float:
        if active is None or not math.isfinite(active):
            return self.harm_bound
        return min(active - other, self.harm_bound)
