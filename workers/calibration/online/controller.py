"""The on-line loop as one pure machine: scored requests go in, what is to be done comes out.

It holds the drift alarm, the trial, the guard of the active version and the pauses between changes. It knows neither
models nor Redis: its caller carries out the steps and reports the outcome (`activated`, `try_version`). Its memory is
JSON and survives a restart. Numbers are means over a request's generated positions, nats per token.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Final, Generic, Literal, TypeVar

from pydantic import Field

from app.contracts.base import Contract
from app.contracts.deployment import IDENTITY, CalibrationMode, DriftState, Version
from workers.calibration.online.capital import spent
from workers.calibration.online.drift import LEAST_LEVEL, DriftDecision, DriftDetector, DriftMemory
from workers.calibration.online.hysteresis import Hysteresis, HysteresisMemory, Permission
from workers.calibration.online.promotion import PairedTrial, TrialMemory, TrialVerdict
from workers.calibration.online.quiet import QuietDetector, QuietMemory
from workers.calibration.online.rollback import GuardDecision, GuardMemory, RollbackGuard, Worse

Limit = Literal["drift", "quiet"]
Scalar = float | int | str | bool | None
Rule = TypeVar("Rule", bound=Contract)
Memory = TypeVar("Memory", bound=Contract)

# Requests whose raw divergence gives the usual one where test documents did not; the guard begins after them.
LEVEL_REQUESTS: Final = 20
QUIET: Final = " (quiet limit)"


class Action(StrEnum):
    """What is to be done, or reported."""

    ALARM = "alarm"
    CLEARED = "cleared"
    PROMOTE = "promote"
    REJECT = "reject"
    ROLL_BACK = "roll_back"


class Step(Contract):
    """One action with the numbers that it was decided on. `version`: promoted, rejected, or to return to."""

    action: Action
    version: Version | None = None
    reason: str = ""
    evidence: dict[str, Scalar] = Field(default_factory=dict)


class Running(Contract, Generic[Rule, Memory]):
    """A test under way: its rule and what it remembers."""

    rule: Rule
    memory: Memory


Drift = Running[DriftDetector, DriftMemory]
Guard = Running[RollbackGuard, GuardMemory]
Trial = Running[PairedTrial, TrialMemory]


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
    drift: Drift | None = None
    retired: DriftMemory | None = Field(default=None, description="of drift, while there is no threshold")
    quiet: QuietMemory = Field(default_factory=QuietMemory)
    guard: Guard | None = None
    unguarded: int = Field(default=0, ge=0, description="requests since the activation, while there is no guard")
    unguarded_raw: float = Field(default=0.0, ge=0, description="sum of their raw divergences")
    trials: int = Field(default=0, ge=0, description="trials since the last promotion")
    candidate: Version | None = None
    trial: Trial | None = None
    pauses: HysteresisMemory = Field(default_factory=HysteresisMemory)


class Loop(Contract):
    """The rule; it may be replaced between two requests when a deployment is patched (`changed`)."""

    mode: CalibrationMode = CalibrationMode.AUTO
    threshold: float | None = Field(default=None, gt=0)
    alpha: float = Field(
        default=0.01, gt=0, lt=1, description="of ever raising a false alarm: half of it by each of the two"
    )
    trial_alpha: float = Field(
        default=0.01, gt=0, lt=1, description="of a wrong promotion, from one promotion to the next"
    )
    guard_alpha: float = Field(default=0.01, gt=0, lt=1, description="of a wrong rollback, each activation")
    pauses: Hysteresis = Field(default_factory=Hysteresis)

    def start(self, active: Version, previous: Version | None, level: float | None) -> LoopMemory:
        """Nothing seen. `level`: the raw model's usual mean divergence (of test documents), None if unknown."""
        return LoopMemory(
            active=active,
            previous=previous,
            drift=self._drift(),
            guard=self.guard(active, level),
        )

    def state(self, memory: LoopMemory) -> DriftState:
        """alarm if either test says so; else what the test of the drift limit says, or the quiet one without it."""
        quiet = self._quiet.state(memory.quiet)
        limit = quiet if memory.drift is None else memory.drift.rule.state(memory.drift.memory)
        return DriftState.ALARM if self.holding(memory) else limit

    def holding(self, memory: LoopMemory) -> tuple[Limit, ...]:
        """The limits whose alarm holds."""
        tests: dict[Limit, DriftMemory | None] = {
            "drift": None if memory.drift is None else memory.drift.memory,
            "quiet": memory.quiet.drift,
        }
        return tuple(limit for limit, test in tests.items() if test is not None and test.relief is not None)

    def observe(self, memory: LoopMemory, observed: Observed) -> tuple[LoopMemory, tuple[Step, ...]]:
        """After one scored request. A rollback comes before anything else and leaves the rest for later requests."""
        after = memory.model_copy(update={"scored": memory.scored + 1})
        after, steps = self._drifted(after, observed.active)
        if after.guard is None:
            after = self._learnt_level(after, observed)
        else:
            rule = after.guard.rule
            guarded, judged = rule.update(after.guard.memory, observed.active, observed.raw, observed.previous)
            after = after.model_copy(update={"guard": Guard(rule=rule, memory=guarded)})
            if judged.worse is not None and self.mode is CalibrationMode.AUTO:
                return after, (*steps, _rollback(after, judged))
        if after.trial is not None and (observed.candidate is not None or observed.candidate_failed):
            after, more = self._tried(after, observed)
            steps += more
        return after, tuple(steps)

    def observe_drift(self, memory: LoopMemory, served: float | None) -> tuple[LoopMemory, tuple[Step, ...]]:
        """After one scored request that another version served in the active one's stead: evidence of drift alone."""
        after, steps = self._drifted(memory.model_copy(update={"scored": memory.scored + 1}), served, learn=False)
        return after, tuple(steps)

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
        rule = PairedTrial.new(max(level, LEAST_LEVEL), spent(self.trial_alpha, trials))
        trial = Trial(rule=rule, memory=rule.start())
        return memory.model_copy(update={"candidate": version, "trial": trial, "trials": trials}), permission

    def activated(
        self, memory: LoopMemory, version: Version, previous: Version | None, level: float | None
    ) -> tuple[LoopMemory, tuple[Step, ...]]:
        """After another version came into force, by whomever: guard and drift begin again, a trial ends."""
        after = memory.model_copy(
            update={
                "active": version,
                "previous": previous,
                "guard": self.guard(version, level),
                "unguarded": 0,
                "unguarded_raw": 0.0,
                "candidate": None,
                "trial": None,
            }
        )
        return self._renewed(after, keep=True)

    def rolled_back(self, memory: LoopMemory, version: Version, now: float) -> LoopMemory:
        """`version` was rolled back: it is barred for a while. `activated` follows."""
        return memory.model_copy(update={"pauses": self.pauses.rolled_back(memory.pauses, version, now, memory.scored)})

    def tests(self, memory: LoopMemory) -> bool:
        """Whether the test of the drift limit that is under way is this rule's."""
        return self._limit_rule() == (None if memory.drift is None else memory.drift.rule)

    def changed(self, memory: LoopMemory) -> tuple[LoopMemory, tuple[Step, ...]]:
        """After threshold or α changed: `self` is in force from now on, and the quiet limit is learned again."""
        return self._renewed(memory, keep=False)

    def _renewed(self, memory: LoopMemory, *, keep: bool) -> tuple[LoopMemory, tuple[Step, ...]]:
        after, limited = self._limited(memory)
        quiet, judged = self._quiet.renewed(memory.quiet, keep=keep)
        after = after.model_copy(update={"quiet": quiet})
        return after, tuple(self._drift_steps(after, limited, judged))

    def _limited(self, memory: LoopMemory) -> tuple[LoopMemory, DriftDecision | None]:
        before = memory.retired if memory.drift is None else memory.drift.memory
        if before is None:
            return memory.model_copy(update={"drift": self._drift()}), None
        rule = self._limit_rule()
        if rule is None:
            if memory.drift is None:
                return memory, None
            rule = memory.drift.rule
        # Episodes are counted on without a threshold too: what they used of α is used.
        remembered, decision = rule.renewed(before)
        known = self.threshold is not None
        after = memory.model_copy(
            update={
                "drift": Drift(rule=rule, memory=remembered) if known else None,
                "retired": None if known else remembered,
            }
        )
        return after, decision

    @property
    def _quiet(self) -> QuietDetector:
        return QuietDetector(alpha=self.alpha / 2)

    def _limit_rule(self) -> DriftDetector | None:
        return None if self.threshold is None else DriftDetector.new(self.threshold, self.alpha / 2)

    def _drift(self) -> Drift | None:
        rule = self._limit_rule()
        return None if rule is None else Drift(rule=rule, memory=rule.start())

    def _drifted(self, memory: LoopMemory, value: float | None, *, learn: bool = True) -> tuple[LoopMemory, list[Step]]:
        """After the divergence of one request: the test of the drift limit, and the quiet one, which may `learn`."""
        limited = None
        if (drift := memory.drift) is not None:
            remembered, limited = drift.rule.update(drift.memory, value)
            memory = memory.model_copy(update={"drift": Drift(rule=drift.rule, memory=remembered)})
        learn = learn and "drift" not in self.holding(memory)
        quiet, judged = self._quiet.update(memory.quiet, value, learn=learn)
        memory = memory.model_copy(update={"quiet": quiet})
        return memory, self._drift_steps(memory, limited, judged)

    def _drift_steps(
        self, memory: LoopMemory, limited: DriftDecision | None, quiet: DriftDecision | None
    ) -> list[Step]:
        """Each alarm that is raised; the end of one if no other holds, and of both once."""
        decisions = [(one, which) for one, which in ((limited, ""), (quiet, QUIET)) if one is not None]
        raised = [_step(Action.ALARM, one, one.reason + which) for one, which in decisions if one.raised]
        ended = [_step(Action.CLEARED, one, one.reason + which) for one, which in decisions if one.cleared]
        return raised if self.holding(memory) else ended[-1:]

    def _learnt_level(self, memory: LoopMemory, observed: Observed) -> LoopMemory:
        if memory.active == IDENTITY:
            return memory
        seen, total = memory.unguarded + 1, memory.unguarded_raw + observed.raw
        guard = self.guard(memory.active, total / seen) if seen >= LEVEL_REQUESTS else None
        return memory.model_copy(update={"guard": guard, "unguarded": seen, "unguarded_raw": total})

    def guard(self, version: Version, level: float | None) -> Guard | None:
        """The guard of an activation; None for identity, or if the raw model's usual divergence is not known."""
        if version == IDENTITY or level is None or not math.isfinite(level):
            return None
        rule = RollbackGuard.new(max(level, LEAST_LEVEL), self.guard_alpha)
        return Guard(rule=rule, memory=rule.start())

    def _tried(self, memory: LoopMemory, observed: Observed) -> tuple[LoopMemory, list[Step]]:
        if memory.trial is None or observed.active is None:
            return memory, []
        value = None if observed.candidate_failed else observed.candidate
        rule = memory.trial.rule
        tried, judged = rule.update(memory.trial.memory, observed.active, value)
        after = memory.model_copy(update={"trial": Trial(rule=rule, memory=tried)})
        if judged.verdict is TrialVerdict.TRIAL:
            return after, []
        version, action = memory.candidate, Action.PROMOTE
        after = after.model_copy(update={"trial": None, "candidate": None})
        if judged.verdict is TrialVerdict.PROMOTE:
            after = after.model_copy(update={"trials": 0})
        elif version is not None:
            action = Action.REJECT
            after = after.model_copy(update={"pauses": self.pauses.failed(after.pauses, version, observed.at)})
        return after, [_step(action, judged, judged.reason, version)]


def _rollback(memory: LoopMemory, judged: GuardDecision) -> Step:
    version = memory.previous if judged.worse is Worse.PREVIOUS and memory.previous is not None else IDENTITY
    return _step(Action.ROLL_BACK, judged, judged.reason, version)


def _step(action: Action, decision: Contract, reason: str, version: Version | None = None) -> Step:
    """`evidence` are the numbers of the decision, as the deployment's event carries them."""
    return Step(action=action, version=version, reason=reason, evidence=decision.model_dump(mode="json"))
