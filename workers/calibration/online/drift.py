"""The drift alarm: has the mean divergence of served traffic risen above the deployment's threshold?

x is the mean KL(reference‖served) over a request's generated tokens, in nats per token, m the threshold. Null: whatever
came before, the next request's mean is at most m. Payoff z = min(x, B)/m - 1, which is -1 at least because KL is not
negative. The test would be valid without the bound B. Clipping can only lower the mean, so the null of x implies that
of min(x, B). One request cannot raise an alarm alone.

The alarm is raised when the capital (`capital.Capital`, with restarts) reaches 1/α_k, k the episode. Episodes share α
as α/(k(k+1)), so that the probability of ever raising a false alarm, over all of them, is α at most. An episode ends
when an alarm is cleared or when another calibration version, or another threshold, comes into force.

Cleared (hysteresis): by a second capital against the null that the mean is still at least (1 - margin) m. The payoff is
z = ((1 - margin) m - x)/(R m - (1 - margin) m). R m is the largest x that costs one stake; a larger x costs several. It
reaches 1/β with probability β at most while E[min(x, R m)] is that high.
"""

from __future__ import annotations

import math
from typing import Final

from pydantic import Field

from app.contracts.base import Contract
from app.contracts.deployment import DriftState
from workers.calibration.online.capital import Capital, spent

BOUND: Final = 32.0
RELIEF_BOUND: Final = 8.0
# Bounds are multiples of a usual divergence; below this it is taken for this, nats per token.
LEAST_LEVEL: Final = 1e-4


class DriftMemory(Contract):
    """What the detector remembers; JSON, a few hundred bytes."""

    episode: int = Field(default=1, ge=1)
    seen: int = Field(default=0, ge=0, description="requests of this episode")
    alarms: int = Field(default=0, ge=0, description="of all episodes")
    proven: bool = Field(default=False, description="the episode began with proof that the mean is low")
    evidence: Capital = Field(description="against: the mean is at most the threshold")
    relief: Capital | None = Field(default=None, description="against: it still is too high; while there is an alarm")


class DriftDecision(Contract):
    """What one request, or a change of version, led to."""

    state: DriftState = Field(description="learning, ok or alarm")
    raised: bool = Field(default=False, description="the alarm began with this request")
    cleared: bool = Field(default=False, description="the alarm ended with this request or change")
    e_value: float = Field(description="evidence for drift in this episode")
    level: float = Field(description="e-value at which the alarm is raised: 1/α_k")
    relief_e_value: float | None = Field(description="evidence that an alarm is over; null: there is none")
    relief_level: float
    threshold: float
    episode: int
    seen: int
    alarms: int
    reason: str = ""


class DriftDetector(Contract):
    """The rule. Bounds are multiples of the threshold."""

    threshold: float = Field(gt=0, description="nats per token")
    alpha: float = Field(default=0.01, gt=0, lt=1, description="probability of ever raising a false alarm")
    bound: float = Field(default=BOUND, gt=1)
    margin: float = Field(default=0.1, ge=0, lt=1)
    relief_alpha: float = Field(
        default=0.05, gt=0, lt=1, description="probability that an alarm is cleared while the drift lasts"
    )
    relief_bound: float = Field(default=RELIEF_BOUND, gt=1)
    dependence: float = Field(default=1.0, ge=1, description="requests that are worth one independent request")
    learning: int = Field(default=20, ge=0, description="requests of an episode before its state is called ok")

    @classmethod
    def new(cls, threshold: float, alpha: float = 0.01, bound: float = BOUND) -> DriftDetector:
        """The rule with its usual margin and relief."""
        return cls(threshold=threshold, alpha=alpha, bound=bound)

    def start(self) -> DriftMemory:
        """Nothing seen."""
        return DriftMemory(evidence=Capital.new(restarts=True))

    def update(self, memory: DriftMemory, value: float | None) -> tuple[DriftMemory, DriftDecision]:
        """After one request of mean divergence `value`, nats per token.

        What is not a finite number (None, as JSON has it, too) counts as the bound while there is no alarm, and takes
        all evidence that an alarm is over. Raises ValueError for a negative value.
        """
        if value is None or not math.isfinite(value):
            value = math.inf
        if value < 0:
            raise ValueError("a divergence is not negative")
        if memory.relief is None:
            evidence = memory.evidence.after(min(value / self.threshold, self.bound) - 1, self.dependence)
            raised = evidence.value >= self.level(memory)
            after = memory.model_copy(
                update={
                    "seen": memory.seen + 1,
                    "evidence": evidence,
                    "alarms": memory.alarms + raised,
                    "relief": Capital.new(restarts=True) if raised else None,
                }
            )
            return after, self._decision(after, raised=raised, reason="the mean is above the threshold" * raised)
        target = 1 - self.margin
        relief = memory.relief.after((target - value / self.threshold) / (self.relief_bound - target), self.dependence)
        after = memory.model_copy(update={"seen": memory.seen + 1, "relief": relief})
        if relief.value < 1 / self.relief_alpha:
            return after, self._decision(after)
        decision = self._decision(after, cleared=True, reason="the mean is below the threshold again")
        return self._next(after, proven=True), decision.model_copy(update={"state": DriftState.OK})

    def renewed(self, memory: DriftMemory) -> tuple[DriftMemory, DriftDecision]:
        """After another version, or another threshold, came into force: an alarm ends, evidence begins again.

        `self` is the rule that is in force from now on.
        """
        after = self._next(memory)
        cleared = memory.relief is not None
        reason = "what was served when it was raised is served no more" if cleared else ""
        return after, self._decision(after, cleared=cleared, reason=reason)

    def state(self, memory: DriftMemory) -> DriftState:
        """learning, ok or alarm."""
        if memory.relief is not None:
            return DriftState.ALARM
        return DriftState.OK if memory.proven or memory.seen >= self.learning else DriftState.LEARNING

    def level(self, memory: DriftMemory) -> float:
        """The e-value at which the alarm of this episode is raised: k(k+1)/α in the k-th."""
        return 1 / spent(self.alpha, memory.episode)

    def _next(self, memory: DriftMemory, *, proven: bool = False) -> DriftMemory:
        return DriftMemory(
            episode=memory.episode + 1, alarms=memory.alarms, proven=proven, evidence=Capital.new(restarts=True)
        )

    def _decision(
        self, memory: DriftMemory, *, raised: bool = False, cleared: bool = False, reason: str = ""
    ) -> DriftDecision:
        return DriftDecision(
            state=self.state(memory),
            raised=raised,
            cleared=cleared,
            e_value=memory.evidence.value,
            level=self.level(memory),
            relief_e_value=None if memory.relief is None else memory.relief.value,
            relief_level=1 / self.relief_alpha,
            threshold=self.threshold,
            episode=memory.episode,
            seen=memory.seen,
            alarms=memory.alarms,
            reason=reason,
        )
