"""The trial of a refitted profile: is it better than the active one on the same requests?

g = KL(active) - KL(candidate), each the mean over the same generated positions of one request, nats per token: what the
candidate gains. Null: whatever came before, the mean of g is at most `margin`. The payoff is z = (min(g, G) -
margin)/(L + margin). Gains are clipped at G, which can only make promotion harder. Losses are not clipped: a loss
beyond L costs several stakes (see `capital`). So a candidate with E[max(min(g, G), -L)] ≤ margin is ever promoted with
probability α at most. One that is harmful by its tail beyond L alone loses capital on average.

Rejected when a second capital shows the opposite (mean of g below 0) at level β, or when its divergence is not a finite
number; inconclusive after `most` requests.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Final

from pydantic import Field

from app.contracts.base import Contract
from workers.calibration.online.capital import Capital

# Stakes that one loss can win for a rejection: a single request cannot reject a candidate whose divergence is finite.
REJECT_BOUND: Final = 16.0


class TrialVerdict(StrEnum):
    """trial: it goes on. The others end it."""

    TRIAL = "trial"
    PROMOTE = "promote"
    REJECT = "reject"
    INCONCLUSIVE = "inconclusive"


class TrialMemory(Contract):
    """What a trial remembers."""

    verdict: TrialVerdict = TrialVerdict.TRIAL
    seen: int = Field(default=0, ge=0)
    gain: float = Field(default=0.0, description="sum of the gains, unclipped, nats per token")
    better: Capital
    worse: Capital


class TrialDecision(Contract):
    """The state of a trial."""

    verdict: TrialVerdict
    seen: int
    mean_gain: float = Field(description="nats per token saved on average, unclipped")
    e_better: float
    level_better: float
    e_worse: float
    level_worse: float
    reason: str = ""


class PairedTrial(Contract):
    """The rule of one trial. Bounds in nats per token."""

    loss_bound: float = Field(gt=0, description="L: losses up to here cost one stake")
    gain_bound: float = Field(gt=0, description="G: a larger gain counts as this")
    alpha: float = Field(default=0.01, gt=0, lt=1, description="probability that one that is not better is promoted")
    reject_alpha: float = Field(default=0.05, gt=0, lt=1)
    margin: float = Field(default=0.0, ge=0, description="gain that it must exceed, nats per token")
    fewest: int = Field(default=20, ge=1, description="requests before a promotion")
    most: int = Field(default=2000, ge=1, description="requests after which the trial ends")

    @classmethod
    def new(cls, level: float, alpha: float = 0.01) -> PairedTrial:
        """For an active profile whose mean divergence is about `level` nats: L = 4 level, G = level.

        `level` must be known before the trial begins.
        """
        return cls(loss_bound=4 * level, gain_bound=level, alpha=alpha)

    def start(self) -> TrialMemory:
        """Nothing seen."""
        return TrialMemory(better=Capital.new(restarts=False), worse=Capital.new(restarts=False))

    def update(self, memory: TrialMemory, active: float, candidate: float | None) -> tuple[TrialMemory, TrialDecision]:
        """After one request with these mean divergences (nats per token) under both profiles at the same positions.

        A candidate's divergence that is not finite (or None, which JSON has for it) rejects it. Raises ValueError if
        the active one's is not finite, and where the trial has ended.
        """
        if memory.verdict is not TrialVerdict.TRIAL:
            raise ValueError("the trial has ended")
        if not math.isfinite(active):
            raise ValueError("the active profile's divergence is not finite")
        if candidate is None or not math.isfinite(candidate):
            ended = memory.model_copy(update={"verdict": TrialVerdict.REJECT, "seen": memory.seen + 1})
            return ended, self._decision(ended, "the candidate's divergence is not finite")
        gain = active - candidate
        after = TrialMemory(
            seen=memory.seen + 1,
            gain=memory.gain + gain,
            better=memory.better.after((min(gain, self.gain_bound) - self.margin) / (self.loss_bound + self.margin)),
            worse=memory.worse.after(min(-gain / self.loss_bound, REJECT_BOUND)),
        )
        verdict, reason = self._verdict(after)
        after = after.model_copy(update={"verdict": verdict})
        return after, self._decision(after, reason)

    def _verdict(self, memory: TrialMemory) -> tuple[TrialVerdict, str]:
        if memory.better.value >= 1 / self.alpha and memory.seen >= self.fewest:
            return TrialVerdict.PROMOTE, "it is better than the active version"
        if memory.worse.value >= 1 / self.reject_alpha:
            return TrialVerdict.REJECT, "it is worse than the active version"
        if memory.seen >= self.most:
            return TrialVerdict.INCONCLUSIVE, "no difference was shown in time"
        return TrialVerdict.TRIAL, ""

    def _decision(self, memory: TrialMemory, reason: str) -> TrialDecision:
        return TrialDecision(
            verdict=memory.verdict,
            seen=memory.seen,
            mean_gain=memory.gain / memory.seen,
            e_better=memory.better.value,
            level_better=1 / self.alpha,
            e_worse=memory.worse.value,
            level_worse=1 / self.reject_alpha,
            reason=reason,
        )
