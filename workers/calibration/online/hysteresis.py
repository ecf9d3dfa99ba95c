"""Pauses between changes, so that versions do not alternate.

- A refit needs `fresh` newly scored requests since the last refit and rollback.
- A version that was rolled back, or rejected in trial, waits for `cooldown_s`. After a rollback no other is tried
  before `fresh` newly scored requests.
"""

from __future__ import annotations

from pydantic import Field

from app.contracts.base import Contract
from app.contracts.deployment import Version


class HysteresisMemory(Contract):
    """Times in Unix seconds; counts of scored requests since the deployment began."""

    barred: tuple[tuple[Version, float], ...] = Field(default=(), description="versions and until when")
    fitted_at: int | None = Field(default=None, description="scored requests when the last refit began")
    rolled_back_at: int | None = Field(default=None, description="scored requests at the last rollback")


class Permission(Contract):
    """Whether something may be done now, and why not."""

    allowed: bool
    reason: str = ""


class Hysteresis(Contract):
    """The rule."""

    cooldown_s: float = Field(default=3600.0, ge=0)
    fresh: int = Field(default=100, ge=0, description="scored requests")

    def start(self) -> HysteresisMemory:
        """Nothing barred."""
        return HysteresisMemory()

    def may_fit(self, memory: HysteresisMemory, scored: int) -> bool:
        """Whether a refit may begin after `scored` requests."""
        begun = (memory.fitted_at, memory.rolled_back_at)
        return all(at is None or scored - at >= self.fresh for at in begun)

    def may_try(self, memory: HysteresisMemory, version: Version, now: float, scored: int) -> Permission:
        """Whether `version` may be tried, and so promoted, now."""
        until = dict(memory.barred).get(version)
        if until is not None and now < until:
            return Permission(allowed=False, reason=f"it failed; barred for another {until - now:.0f} s")
        if memory.rolled_back_at is not None and scored - memory.rolled_back_at < self.fresh:
            return Permission(
                allowed=False,
                reason=f"{scored - memory.rolled_back_at} of {self.fresh} requests scored since the last rollback",
            )
        return Permission(allowed=True)

    def fitted(self, memory: HysteresisMemory, scored: int) -> HysteresisMemory:
        """A refit began."""
        return memory.model_copy(update={"fitted_at": scored})

    def failed(self, memory: HysteresisMemory, version: Version, now: float) -> HysteresisMemory:
        """`version` was rejected in its trial."""
        kept = [(name, until) for name, until in memory.barred if until > now and name != version]
        return memory.model_copy(update={"barred": (*kept, (version, now + self.cooldown_s))})

    def rolled_back(self, memory: HysteresisMemory, version: Version, now: float, scored: int) -> HysteresisMemory:
        """`version` was rolled back."""
        return self.failed(memory, version, now).model_copy(update={"rolled_back_at": scored})
