"""Staleness: no observation for too long is a state of its own, whatever the last one said."""

from __future__ import annotations

from pydantic import Field

from app.contracts.base import Contract

AFTER_S = 600.0
GAPS = 3.0


class StalenessMemory(Contract):
    """Times in Unix seconds."""

    since: float = Field(description="the last observation, or the start of watching")
    observed_at: float | None = None
    stale: bool = False


class StalenessDecision(Contract):
    """`began` and `ended` are true once, at the change."""

    stale: bool
    began: bool = False
    ended: bool = False
    age_s: float
    after_s: float


class Staleness(Contract):
    """The rule: stale when nothing came for more than `after_s` seconds; an observation ends it."""

    after_s: float = Field(default=AFTER_S, gt=0)

    @classmethod
    def for_traffic(cls, requests_per_s: float, shadow_rate: float, least_s: float = AFTER_S) -> Staleness:
        """Three times the expected gap between sampled requests, but `least_s` at least.

        Where requests come independently a gap is three times its mean with probability e⁻³ = 5 %. `least_s` alone
        where no traffic is expected.
        """
        rate = requests_per_s * shadow_rate
        return cls(after_s=max(least_s, GAPS / rate) if rate > 0 else least_s)

    def start(self, now: float) -> StalenessMemory:
        """Watching begins; it is stale only after `after_s` without an observation."""
        return StalenessMemory(since=now)

    def observed(self, memory: StalenessMemory, at: float) -> tuple[StalenessMemory, StalenessDecision]:
        """After an observation. A clock that went back changes nothing."""
        since = max(memory.since, at)
        return (
            StalenessMemory(since=since, observed_at=since),
            StalenessDecision(stale=False, ended=memory.stale, age_s=0.0, after_s=self.after_s),
        )

    def check(self, memory: StalenessMemory, now: float) -> tuple[StalenessMemory, StalenessDecision]:
        """At any time between observations."""
        age_s = max(now - memory.since, 0.0)
        stale = memory.stale or age_s > self.after_s
        return memory.model_copy(update={"stale": stale}), StalenessDecision(
            stale=stale, began=stale and not memory.stale, age_s=age_s, after_s=self.after_s
        )
