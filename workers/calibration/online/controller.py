"""The on-line loop as one pure machine: scored requests go in, what is to be done comes out.

It holds the drift alarm, the trial, the guard of the active version and the pauses between changes, and knows neither
models nor Redis: anyone who scores the traffic carries out what it says and shows it what became of that (`activated`,
`fit_ended`, `try_version`). Its memory is JSON, so it survives a restart. Numbers are means over a request's generated
positions, nats per token.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Final, cast

from pydantic import Field

from app.contracts.base import Contract
from app.contracts.deployment import IDENTITY, CalibrationMode, DriftState, Version
from workers.calibration.online.capital import spent
from workers.calibration.online.drift import DriftDecision, DriftDetector, DriftMemory
from workers.calibration.online.hysteresis import Hysteresis, HysteresisMemory, Permission
from workers.calibration.online.promotion import PairedTrial, TrialDecision, TrialVerdict
from workers.calibration.online.record import DecisionRecord, Recorded, Scalar, evidence
from workers.calibration.online.rollback import GuardDecision, RollbackGuard, Worse

# Bounds are multiples of a usual divergence; below this it is taken for this, nats per token.
LEAST_LEVEL: Final = 1e-4
# Requests whose raw divergence gives the usual one where test documents did not; the guard begins after them.
LEVEL_REQUESTS: Final = 20


class Action(StrEnum):
    """What is to be done, or told."""

    ALARM = "alarm"
    CLEARED = "cleared"
    FIT = "fit"
    PROMOTE = "promote"
    REJECT = "reject"
    ROLL_BACK = "roll_back"


class Step(Contract):
    """One action with the numbers that it was decided on. `version`: promoted, rejected, or to return to."""

    action: Action
    version: Version | None = None
    reason: str = ""
    evidence: dict[str, Scalar] = Field(default_factory=dict)
    record: DecisionRecord | None = None


class Observed(Contract):
    """One scored request. None: there is no such version, or it was not scored."""

    at: float
    raw: float = Field(ge=0)
    active: float | None = Field(
        ge=0, description="under the active version; raw where that is identity; null: not a finite number"
    )
    previous: float | None = Field(default=None, ge=0)
    candidate: float | None = Field(default=None, ge=0, description="under the version on trial")
    candidate_failed: bool = Field(default=False, description="its divergence was not a finite number")


class LoopMemory(Contract):
    """What the loop remembers."""

    active: Version = IDENTITY
    previous: Version | None = None
    scored: int = Field(default=0, ge=0)
    drift: Recorded | None = None
    retired: DriftMemory | None = Field(default=None, description="of drift, while there is no threshold")
    guard: Recorded | None = None
    unguarded: int = Field(default=0, ge=0, description="requests since the activation, while there is no guard")
    unguarded_raw: float = Field(default=0.0, ge=0, description="sum of their raw divergences")
    trials: int = Field(default=0, ge=0, description="trials since the last promotion")
    candidate: Version | None = None
    trial: Recorded | None = None
    fitting: bool = False
    pauses: HysteresisMemory = Field(default_factory=HysteresisMemory)


class Loop(Contract):
    """The rule; it may be replaced between two requests when a deployment is patched (`changed`)."""

    mode: CalibrationMode = CalibrationMode.AUTO
    threshold: float | None = Field(default=None, gt=0)
    alpha: float = Field(default=0.01, gt=0, lt=1, description="of ever raising a false drift alarm")
    trial_alpha: float = Field(
        default=0.01, gt=0, lt=1, description="of a wrong promotion, from one promotion to the next"
    )
    guard_alpha: float = Field(default=0.01, gt=0, lt=1, description="of a wrong rollback, each activation")
    pauses: Hysteresis = Field(default_factory=Hysteresis)
    refit_every: int | None = Field(default=1000, ge=1, description="scored requests; null: after alarms only")

    def start(self, active: Version, previous: Version | None, level: float | None) -> LoopMemory:
        """Nothing seen. `level`: the raw model's usual mean divergence (of test documents), None where unknown."""
        return LoopMemory(active=active, previous=previous, drift=self._drift(), guard=_guard(self, active, level))

    def state(self, memory: LoopMemory) -> DriftState:
        """learning, ok or alarm."""
        if memory.drift is None:
            return DriftState.LEARNING
        return cast(DriftDetector, memory.drift.rule).state(cast(DriftMemory, memory.drift.memory))

    def observe(self, memory: LoopMemory, observed: Observed) -> tuple[LoopMemory, tuple[Step, ...]]:
        """After one scored request. A rollback comes before anything else and leaves the rest for later requests."""
        after = memory.model_copy(update={"scored": memory.scored + 1})
        steps: list[Step] = []
        if after.drift is not None:
            drift, decision = after.drift.update(observed.active)
            after = after.model_copy(update={"drift": drift})
            steps += _drift_steps(drift, decision)
        if after.guard is None:
            after = self._learnt_level(after, observed)
        else:
            guard, judged = after.guard.update(observed.active, observed.raw, observed.previous)
            after = after.model_copy(update={"guard": guard})
            if judged.worse is not None and self.mode is CalibrationMode.AUTO:
                return after, (*steps, _rollback(after, guard, judged))
        if after.trial is not None and (observed.candidate is not None or observed.candidate_failed):
            after, more = self._tried(after, observed)
            steps += more
        promoted = any(step.action is Action.PROMOTE for step in steps)
        if not promoted and self._wants_fit(after):
            after = after.model_copy(
                update={"fitting": True, "pauses": self.pauses.fitted(after.pauses, after.scored)},
            )
            steps.append(Step(action=Action.FIT, reason=f"drift is {self.state(after).value}"))
        return after, tuple(steps)

    def observe_drift(self, memory: LoopMemory, served: float | None) -> tuple[LoopMemory, tuple[Step, ...]]:
        """After one scored request that another version served in the active one's stead: evidence of drift alone."""
        after = memory.model_copy(update={"scored": memory.scored + 1})
        if after.drift is None:
            return after, ()
        drift, decision = after.drift.update(served)
        return after.model_copy(update={"drift": drift}), tuple(_drift_steps(drift, decision))

    def fit_ended(self, memory: LoopMemory) -> LoopMemory:
        """The refit that was asked for has ended, well or not."""
        return memory.model_copy(update={"fitting": False})

    def try_version(
        self, memory: LoopMemory, version: Version, level: float, now: float
    ) -> tuple[LoopMemory, Permission]:
        """Begin the trial of `version`, if it may be tried. `level`: the active version's mean divergence of late.

        Trials between two promotions share α as drift's episodes do: anyone who tries often enough would find one that
        passes by luck.
        """
        if self.mode is not CalibrationMode.AUTO:
            return memory, Permission(allowed=False, reason=f"calibration is {self.mode.value}")
        if version == memory.active:
            return memory, Permission(allowed=False, reason="it is the active version")
        permission = self.pauses.may_try(memory.pauses, version, now, memory.scored)
        if not permission.allowed:
            return memory, permission
        trials = memory.trials + 1
        trial = Recorded.start(PairedTrial.new(max(level, LEAST_LEVEL), spent(self.trial_alpha, trials)))
        return memory.model_copy(update={"candidate": version, "trial": trial, "trials": trials}), permission

    def activated(
        self, memory: LoopMemory, version: Version, previous: Version | None, level: float | None
    ) -> tuple[LoopMemory, tuple[Step, ...]]:
        """After another version came into force, by whomever: guard and drift begin again, a trial ends."""
        after = memory.model_copy(
            update={
                "active": version,
                "previous": previous,
                "guard": _guard(self, version, level),
                "unguarded": 0,
                "unguarded_raw": 0.0,
                "candidate": None,
                "trial": None,
            }
        )
        return self.changed(after)

    def rolled_back(self, memory: LoopMemory, version: Version, now: float) -> LoopMemory:
        """`version` was rolled back: it is barred for a while. `activated` follows."""
        return memory.model_copy(update={"pauses": self.pauses.rolled_back(memory.pauses, version, now, memory.scored)})

    def changed(self, memory: LoopMemory) -> tuple[LoopMemory, tuple[Step, ...]]:
        """After threshold or α changed: `self` is in force from now on."""
        before = memory.retired if memory.drift is None else cast(DriftMemory, memory.drift.memory)
        if before is None:
            return memory.model_copy(update={"drift": self._drift()}), ()
        if self.threshold is not None:
            rule = DriftDetector.new(self.threshold, self.alpha)
        elif memory.drift is not None:
            rule = cast(DriftDetector, memory.drift.rule)
        else:
            return memory, ()
        # Episodes are counted on without a threshold too: what they used of α is used.
        remembered, decision = rule.renewed(before)
        known = self.threshold is not None
        after = memory.model_copy(
            update={
                "drift": Recorded.resume(rule, remembered) if known else None,
                "retired": None if known else remembered,
            }
        )
        steps = (Step(action=Action.CLEARED, reason=decision.reason, evidence=evidence(decision)),)
        return after, steps if decision.cleared else ()

    def _drift(self) -> Recorded | None:
        return None if self.threshold is None else Recorded.start(DriftDetector.new(self.threshold, self.alpha))

    def _learnt_level(self, memory: LoopMemory, observed: Observed) -> LoopMemory:
        if memory.active == IDENTITY:
            return memory
        seen, total = memory.unguarded + 1, memory.unguarded_raw + observed.raw
        guard = _guard(self, memory.active, total / seen) if seen >= LEVEL_REQUESTS else None
        return memory.model_copy(update={"guard": guard, "unguarded": seen, "unguarded_raw": total})

    def _wants_fit(self, memory: LoopMemory) -> bool:
        if self.mode is not CalibrationMode.AUTO or memory.fitting or memory.trial is not None:
            return False
        since = memory.scored - (memory.pauses.fitted_at or 0)
        due = self.refit_every is not None and since >= self.refit_every
        wanted = due or self.state(memory) is DriftState.ALARM
        return wanted and self.pauses.may_fit(memory.pauses, memory.scored).allowed

    def _tried(self, memory: LoopMemory, observed: Observed) -> tuple[LoopMemory, list[Step]]:
        if memory.trial is None or observed.active is None:
            return memory, []
        value = None if observed.candidate_failed else observed.candidate
        trial, decision = memory.trial.update(observed.active, value)
        judged = cast(TrialDecision, decision)
        after = memory.model_copy(update={"trial": trial})
        if judged.verdict is TrialVerdict.TRIAL:
            return after, []
        version, action = memory.candidate, Action.PROMOTE
        after = after.model_copy(update={"trial": None, "candidate": None})
        if judged.verdict is TrialVerdict.PROMOTE:
            after = after.model_copy(update={"trials": 0})
        elif version is not None:
            action = Action.REJECT
            after = after.model_copy(update={"pauses": self.pauses.failed(after.pauses, version, observed.at)})
        return after, [_step(action, trial, judged, judged.reason, version)]


def _guard(rule: Loop, version: Version, level: float | None) -> Recorded | None:
    if version == IDENTITY or level is None or not math.isfinite(level):
        return None
    return Recorded.start(RollbackGuard.new(max(level, LEAST_LEVEL), rule.guard_alpha))


def _drift_steps(drift: Recorded, decision: DriftDecision) -> list[Step]:
    if decision.raised:
        return [_step(Action.ALARM, drift, decision, decision.reason)]
    return [_step(Action.CLEARED, drift, decision, decision.reason)] if decision.cleared else []


def _rollback(memory: LoopMemory, guard: Recorded, judged: GuardDecision) -> Step:
    version = memory.previous if judged.worse is Worse.PREVIOUS and memory.previous is not None else IDENTITY
    return _step(Action.ROLL_BACK, guard, judged, judged.reason, version)


def _step(action: Action, machine: Recorded, decision: Contract, reason: str, version: Version | None = None) -> Step:
    return Step(
        action=action, version=version, reason=reason, evidence=evidence(decision), record=machine.record(decision)
    )
