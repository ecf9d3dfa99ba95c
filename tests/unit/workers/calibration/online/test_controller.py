"""The loop on simulated traffic: shift, alarm, refit, trial, promotion; poison; harm. Numbers only.

A version multiplies the raw divergence of a request by a factor that depends on the request's domain.
"""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from app.contracts.deployment import IDENTITY, CalibrationMode, DriftState, Version
from workers.calibration.online.controller import Action, Loop, LoopMemory, Observed, Step
from workers.calibration.online.hysteresis import Hysteresis

FIRST, REFIT, OTHER = "cal-" + "1" * 16, "cal-" + "2" * 16, "cal-" + "3" * 16
HOME, ABROAD = "home", "abroad"
RAW = {HOME: 0.3, ABROAD: 0.45}
# The first profile was fitted at home, where it saves 30 %, and does harm abroad; the refit has seen both.
FACTORS: dict[Version, dict[str, float]] = {
    IDENTITY: {HOME: 1.0, ABROAD: 1.0},
    FIRST: {HOME: 0.7, ABROAD: 0.97},
    REFIT: {HOME: 0.7, ABROAD: 0.6},
    OTHER: {HOME: 1.2, ABROAD: 1.1},
}
LOOP = Loop(threshold=0.33, alpha=0.01, pauses=Hysteresis(cooldown_s=600, fresh=50))


@dataclass
class Service:
    """Carries out what the loop says, as a shadow process would; a refit takes 30 requests."""

    loop: Loop = LOOP
    refit: Callable[[int], Version] = lambda count: REFIT
    factors: dict[Version, dict[str, float]] = field(default_factory=lambda: dict(FACTORS))
    seed: int = 0
    memory: LoopMemory = field(init=False)
    log: list[tuple[int, Step]] = field(default_factory=list)
    served: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.memory = self.loop.start(FIRST, None, 0.3)
        self.refits: list[int] = []
        self.fitting = False

    def run(self, requests: int, domain: str) -> None:
        for _ in range(requests):
            now = len(self.served)
            size = RAW[domain] * self.rng.lognormvariate(-0.125, 0.5)

            def kl(version: Version | None, size: float = size) -> float | None:
                return None if version is None else size * self.factors[version][domain] * self.rng.uniform(0.8, 1.2)

            active = kl(self.memory.active)
            assert active is not None
            observed = Observed(
                at=float(now),
                raw=size,
                active=active,
                previous=kl(self.memory.previous),
                candidate=kl(self.memory.candidate),
            )
            self.served.append(active)
            self.memory, steps = self.loop.observe(self.memory, observed)
            for step in steps:
                self.carry_out(step, now)
            if self.wants_fit():
                self.fitting = True
                self.refits.append(now)
                self.memory = self.memory.model_copy(
                    update={"pauses": self.loop.pauses.fitted(self.memory.pauses, self.memory.scored)}
                )
            if self.fitting and now >= self.refits[-1] + 30:
                self.fitting = False
                version = self.refit(len(self.refits))
                level = sum(self.served[-100:]) / len(self.served[-100:])
                self.memory, _ = self.loop.try_version(self.memory, version, level, now)

    def carry_out(self, step: Step, now: int) -> None:
        self.log.append((now, step))
        if step.action in {Action.PROMOTE, Action.ROLL_BACK}:
            assert step.version is not None
            was, previous = self.memory.active, None
            if step.action is Action.ROLL_BACK:
                self.memory = self.loop.rolled_back(self.memory, was, now)
            else:
                previous = was
            self.memory, more = self.loop.activated(self.memory, step.version, previous, 0.4)
            self.log += [(now, each) for each in more]

    def wants_fit(self) -> bool:
        alarm = self.loop.mode is CalibrationMode.AUTO and self.loop.state(self.memory) is DriftState.ALARM
        free = not self.fitting and self.memory.trial is None
        return alarm and free and self.loop.pauses.may_fit(self.memory.pauses, self.memory.scored)

    def at(self, action: Action) -> list[int]:
        return [when for when, step in self.log if step.action is action]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.mark.parametrize("seed", range(2))
def test_a_domain_shift_half_way_leads_to_alarm_refit_and_promotion_and_the_divergence_falls(seed: int) -> None:
    service = Service(seed=seed)
    service.run(3000, HOME)
    assert service.log == []
    assert service.loop.state(service.memory) is DriftState.OK
    service.run(800, ABROAD)
    # Either alarm, one after the other: of the drift limit, and of the level that the first requests showed. Both end.
    alarms = [Action.ALARM] * 2
    assert [step.action for _, step in service.log] == [*alarms, Action.PROMOTE, Action.CLEARED]
    alarm, promoted = service.at(Action.ALARM)[0], service.at(Action.PROMOTE)[0]
    assert 3000 < alarm < promoted < 3400
    assert (service.memory.active, service.memory.previous) == (REFIT, FIRST)
    assert mean(service.served[promoted + 1 :]) < 0.33 < mean(service.served[3000:promoted])
    assert service.loop.state(service.memory) is DriftState.OK


@pytest.mark.parametrize("seed", range(2))
def test_a_poisoned_candidate_is_never_promoted_and_not_tried_again_soon(seed: int) -> None:
    service = Service(refit=lambda count: OTHER, seed=seed)
    service.run(300, HOME)
    service.run(1500, ABROAD)
    assert service.at(Action.ALARM)
    assert service.at(Action.REJECT)
    assert not service.at(Action.PROMOTE)
    assert service.memory.active == FIRST
    assert service.memory.candidate is None
    rejected = service.at(Action.REJECT)
    assert all(later - earlier >= 600 for earlier, later in itertools.pairwise(rejected))


def test_trials_between_two_promotions_share_alpha() -> None:
    versions = ["cal-" + f"{index:x}" * 16 for index in range(4, 9)]
    service = Service(
        refit=lambda count: versions[count % 5], factors={**FACTORS, **dict.fromkeys(versions, FACTORS[OTHER])}
    )
    service.run(50, HOME)
    service.run(1000, ABROAD)
    levels = [step.evidence["level_better"] for _, step in service.log if step.action is Action.REJECT]
    assert len(levels) >= 3
    assert levels[:3] == pytest.approx([200, 600, 1200])


@pytest.mark.parametrize("domain", [HOME, ABROAD])
def test_a_version_that_turns_worse_than_raw_is_rolled_back_to_raw_at_once(domain: str) -> None:
    service = Service()
    service.run(300, HOME)
    service.factors = {**FACTORS, FIRST: {HOME: 3.0, ABROAD: 2.5}}
    service.run(60, domain)
    rolled_back = [(when, step) for when, step in service.log if step.action is Action.ROLL_BACK]
    assert len(rolled_back) == 1
    when, step = rolled_back[0]
    assert 300 < when < 340
    assert step.version == IDENTITY == service.memory.active
    assert service.memory.previous is None
    assert mean(service.served[when + 1 :]) < mean(service.served[300:when]) / 2


def test_after_a_rollback_nothing_is_promoted_until_there_is_new_evidence() -> None:
    service = Service()
    service.run(300, HOME)
    service.factors = {**FACTORS, FIRST: {HOME: 3.0, ABROAD: 2.5}}
    service.run(40, HOME)
    assert service.memory.active == IDENTITY
    now = float(len(service.served))
    for version in (FIRST, REFIT):
        _, permission = service.loop.try_version(service.memory, version, 0.3, now)
        assert not permission.allowed
        assert permission.reason
    service.run(60, HOME)
    assert not service.loop.try_version(service.memory, FIRST, 0.3, now)[1].allowed
    assert service.loop.try_version(service.memory, REFIT, 0.3, now)[1].allowed
    assert service.loop.try_version(service.memory, FIRST, 0.3, now + 600)[1].allowed


def test_worse_than_the_version_before_leads_back_to_it() -> None:
    service = Service()
    service.memory, _ = service.loop.activated(service.memory, OTHER, FIRST, 0.3)
    service.factors = {**FACTORS, OTHER: {HOME: 0.95, ABROAD: 0.95}}
    service.run(300, HOME)
    step = next(step for _, step in service.log if step.action is Action.ROLL_BACK)
    assert step.version == FIRST
    assert "before" in step.reason


@pytest.mark.parametrize("mode", [CalibrationMode.FROZEN, CalibrationMode.OFF])
def test_a_frozen_deployment_alarms_and_changes_nothing(mode: CalibrationMode) -> None:
    service = Service(loop=LOOP.model_copy(update={"mode": mode}))
    service.factors = {**FACTORS, FIRST: {HOME: 3.0, ABROAD: 2.5}}
    service.run(300, HOME)
    assert {step.action for _, step in service.log} == {Action.ALARM}
    assert not service.loop.try_version(service.memory, REFIT, 0.3, 0.0)[1].allowed


def test_another_threshold_ends_an_alarm_of_the_old_one() -> None:
    service = Service(loop=LOOP.model_copy(update={"mode": CalibrationMode.FROZEN}))
    service.run(200, ABROAD)
    assert service.loop.state(service.memory) is DriftState.ALARM
    service.loop = service.loop.model_copy(update={"threshold": 0.6})
    service.memory, steps = service.loop.changed(service.memory)
    assert [step.action for step in steps] == [Action.CLEARED]
    service.run(300, ABROAD)
    assert service.at(Action.ALARM) == [service.log[0][0]]


def test_an_alarm_is_cleared_when_the_last_of_both_ends() -> None:
    """Traffic doubles past both limits and falls back to between them, then to where it was."""
    service = Service(loop=LOOP.model_copy(update={"threshold": 0.3, "mode": CalibrationMode.FROZEN}))
    holding = []
    for factor in (0.5, 2.0, 0.8, 0.5):
        service.factors = {**FACTORS, FIRST: {HOME: factor, ABROAD: factor}}
        service.run(2500, HOME)
        holding.append(service.loop.holding(service.memory))
    assert holding == [(), ("drift", "quiet"), ("quiet",), ()]
    assert [step.action for _, step in service.log] == [Action.ALARM, Action.ALARM, Action.CLEARED]
    assert service.at(Action.CLEARED)[0] >= 7500


def test_without_a_threshold_for_a_while_what_was_used_of_alpha_stays_used() -> None:
    service = Service(loop=LOOP.model_copy(update={"mode": CalibrationMode.FROZEN}))
    service.run(200, ABROAD)
    none = service.loop.model_copy(update={"threshold": None})
    memory, steps = none.changed(service.memory)
    assert [step.action for step in steps] == [Action.CLEARED]
    assert none.state(memory) is DriftState.LEARNING
    assert none.changed(memory) == (memory, ())
    service.memory, steps = service.loop.changed(memory)
    assert steps == ()
    service.run(300, ABROAD)
    first, second = (step.evidence["level"] for _, step in service.log if step.action is Action.ALARM)
    assert (first, second) == (pytest.approx(400), pytest.approx(2400))


def test_what_is_above_the_drift_limit_teaches_no_quiet_limit() -> None:
    service = Service(loop=LOOP.model_copy(update={"threshold": 0.1, "mode": CalibrationMode.FROZEN}))
    service.run(2500, HOME)
    assert [step.action for _, step in service.log] == [Action.ALARM]
    assert service.memory.quiet.rule is None


def test_what_another_version_served_teaches_no_quiet_limit() -> None:
    loop = LOOP.model_copy(update={"threshold": None})
    taught = untaught = loop.start(FIRST, None, 0.3)
    rng = random.Random(0)
    for now in range(2500):
        size = 0.1 * rng.lognormvariate(-0.125, 0.5)
        untaught, _ = loop.observe_drift(untaught, size)
        observed = Observed(at=float(now), raw=size, active=size, previous=None, candidate=None)
        taught, _ = loop.observe(taught, observed)
    assert taught.quiet.rule is not None
    assert untaught.quiet.rule is None


def test_where_the_usual_divergence_is_not_known_the_guard_learns_it_first() -> None:
    service = Service()
    service.memory, _ = service.loop.activated(service.memory, FIRST, None, None)
    service.factors = {**FACTORS, FIRST: {HOME: 3.0, ABROAD: 3.0}}
    service.run(19, HOME)
    assert service.memory.guard is None
    service.run(31, HOME)
    assert 20 <= service.at(Action.ROLL_BACK)[0] < 50


def test_a_request_without_finite_divergence_neither_promotes_nor_ends_the_trial_of_another() -> None:
    memory, permission = LOOP.try_version(LOOP.start(FIRST, None, 0.3), REFIT, 0.3, 0.0)
    assert permission.allowed
    memory, _ = LOOP.observe(memory, Observed(at=1.0, raw=0.3, active=None, candidate=0.1))
    assert memory.candidate == REFIT
    memory, steps = LOOP.observe(memory, Observed(at=2.0, raw=0.3, active=0.3, candidate_failed=True))
    assert [step.action for step in steps] == [Action.REJECT]
    assert not LOOP.try_version(memory, REFIT, 0.3, 3.0)[1].allowed
    assert not LOOP.try_version(memory, FIRST, 0.3, 3.0)[1].allowed
