"""The search at work: proposals made, measured, told, and written down with what came of them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pydantic import ValidationError

from app.contracts.errors import HemostatError
from app.contracts.report import Mean
from app.kinds.mitigate.report import Limits, Outcome, Treatment, Trial, Unhelpful
from app.kinds.mitigate.request import TreatmentName
from app.kinds.mitigate.treatments import described
from app.models.checkpoint import CheckpointInfo
from app.models.pace import TOKENS_PER_SECOND, Pace
from app.models.steps import check_recipe
from app.models.surgery_cost import surgery_cost
from app.recipes.recipe import Recipe
from workers.analysis.numerals import numeral
from workers.diagnosis.mitigate.front import Point, broken
from workers.diagnosis.mitigate.search import Measured, Proposal, Rung, Search, plan_name
from workers.diagnosis.mitigate.treatments import ORDER, Arm, Plan, apply_plan, arms_of, why_none
from workers.measuring.recipes import Measurement, RefusedError, estimate
from workers.measuring.subject import Fit, Subject, reported_steps
from workers.process.handler import JobContext


@dataclass(frozen=True)
class Done:
    """One trial and what it gave. `measured` is None if it was refused."""

    proposal: Proposal
    recipe: Recipe
    measured: Measurement | None
    refusal: str = ""
    refusal_code: str = ""


@dataclass
class TrialRunner:
    """Tries treatments of one subject. `measure(recipe, rung)` makes and measures, and raises `RefusedError`.

    `base` holds the candidate's own measurements by rung, `reference` is the model that treatments align with.
    """

    subject: Subject
    fit: Fit
    limits: Limits
    base: Mapping[Rung, Measurement]
    measure: Callable[[Recipe, Rung], Measurement]
    context: JobContext
    seed: int
    reference: CheckpointInfo
    done: list[Done] = field(default_factory=list)

    def arms(self, wanted: Sequence[TreatmentName]) -> tuple[list[Arm], dict[TreatmentName, str]]:
        """The arms of the wanted treatments that can be tried, and why others cannot."""
        if not math.isfinite(self.base["full"].mean):
            unfit = "the candidate's logits are not finite at some positions, so that what is saved cannot be known"
            return [], {name: unfit for name in ORDER if name in wanted}
        found: list[Arm] = []
        why: dict[TreatmentName, str] = {}
        for name in ORDER:
            if name not in wanted:
                continue
            own = arms_of(self.subject, name)
            if not own:
                why[name] = why_none(self.subject, name)
                continue
            refused = [self._refusal((arm,)) for arm in own]
            usable = [arm for arm, reason in zip(own, refused, strict=True) if not reason]
            if not usable:
                why[name] = refused[0]
            elif not any(self._fits(self.subject.bytes + arm.bytes) for arm in usable):
                least = min(self.subject.bytes + arm.bytes for arm in usable)
                over = broken(self.limits, size=least, bits=self._bits(least), latency=None)
                why[name] = f"at its smallest, {over}"
            found += usable
        return found, why

    def run(self, arms: Sequence[Arm], trials: int) -> None:
        """Makes trials until they are spent or none is worth making."""
        search = Search(
            arms=arms,
            candidate={rung: Measured(one.mean, one.record.bytes) for rung, one in self.base.items()},
            trials=trials,
            fits=self._fits,
            possible=lambda plan: not self._refusal(plan),
            seconds=self._seconds,
        )
        while (proposal := search.next()) is not None:
            self.context.check_cancelled()
            self.context.progress("search", search.spent, trials)
            self.context.log(self._beginning(proposal, search.spent + 1, trials))
            done = self._watched(proposal)
            self.done.append(done)
            one = done.measured
            search.tell(proposal, None if one is None else Measured(one.mean, one.record.bytes))
            self.context.log(self._line(done, search.spent, trials))
        self.context.progress("search", trials, trials)

    def points(self) -> list[tuple[Point, Done | None]]:
        """What was measured in full, the candidate itself first."""
        found: list[tuple[Point, Done | None]] = [(self._point((), self.base["full"], None), None)]
        for done in self.done:
            one = done.measured
            if done.proposal.rung == "full" and one is not None and one.mean < float("inf"):
                found.append((self._point(done.proposal.plan, one, self.saved(done)), done))
        return found

    def saved(self, done: Done) -> Mean:
        """What a trial saved, paired with the candidate at the same positions."""
        one = done.measured
        if one is None:
            return Mean(mean=None, ci=None)
        base = self.base[done.proposal.rung]
        return estimate(base.kl - one.kl, one.where, seed=self.seed)

    def latency(self, one: Measurement) -> float | None:
        """Time a token more than the candidate's, as a share of it."""
        mine, own = one.record.tokens_per_second, self.base["full"].record.tokens_per_second
        return None if mine is None or own is None or mine <= 0 else own / mine - 1

    def trials(self, front: Sequence[str]) -> tuple[Trial, ...]:
        """Every trial as the report shows it. `front` holds the keys of the front's points."""
        promoted = {done.proposal.plan for done in self.done if done.proposal.rung == "full"}
        return tuple(self._trial(number, done, set(front), promoted) for number, done in enumerate(self.done, 1))

    def unhelpful(
        self, wanted: Sequence[TreatmentName], why: Mapping[TreatmentName, str], helpful: Sequence[Plan]
    ) -> tuple[Unhelpful, ...]:
        """What did not help, and why: not tried, refused, saved nothing, or others did better. `helpful`: plans of the
        front that help for sure, the recommended one among them; empty if nothing is recommended."""
        found = [Unhelpful(treatment=name, reason=reason) for name, reason in why.items()]
        helped = {arm.name for plan in helpful for arm in plan}
        for name in ORDER:
            mine = [done for done in self.done if any(arm.name == name for arm in done.proposal.plan)]
            if name in helped or name in why or name not in wanted:
                continue
            if not mine:
                listed = "it was not tried: less was expected of it a byte than of others, or nothing was left to save"
                found.append(Unhelpful(treatment=name, reason=listed))
                continue
            alone = [done for done in mine if len(done.proposal.plan) == 1 and done.measured is not None]
            best = max((mean for done in alone if (mean := self.saved(done).mean) is not None), default=None)
            reason = self._why_not(mine, best, chosen=bool(helpful))
            found.append(Unhelpful(treatment=name, reason=reason, best_saved=best))
        return tuple(found)

    # --- one trial

    def _watched(self, proposal: Proposal) -> Done:
        """`_try`, told to the metrics."""
        began = time.monotonic()
        self.context.observe("mitigate_trial_running", 1)
        try:
            done = self._try(proposal)
        finally:
            self.context.observe("mitigate_trial_running", 0)
        self.context.observe("mitigate_trial_seconds", time.monotonic() - began, rung=proposal.rung)
        self.context.observe("mitigate_trials", 1, outcome="refused" if done.measured is None else "measured")
        return done

    def _try(self, proposal: Proposal) -> Done:
        fit = replace(self.fit, cheap=proposal.rung == "cheap")
        recipe: Recipe = ()
        try:
            recipe = apply_plan(self.subject, proposal.plan, fit)
            return Done(proposal, recipe, self.measure(recipe, proposal.rung))
        except RefusedError as error:
            return Done(proposal, recipe, None, str(error), error.code)

    def _refusal(self, plan: Plan) -> str:
        """Why the recipe of a plan cannot be made, from shapes alone; empty if nothing speaks against it."""
        try:
            recipe = apply_plan(self.subject, plan, self.fit)
            check_recipe(self.subject.origin, recipe, pointer="/candidate/recipe", reference=self.reference)
        except HemostatError as error:
            return error.detail
        except ValidationError as error:
            return f"its recipe cannot be written: {error.errors()[0]['msg']}"
        return ""

    def _seconds(self, plan: Plan) -> float:
        """About how long the recipe of a plan takes to make for a cheap trial, on the machine of the estimates."""
        recipe = apply_plan(self.subject, plan, replace(self.fit, cheap=True))
        here, settings = Pace(TOKENS_PER_SECOND, ""), self.context.settings
        seconds, _ = surgery_cost(self.subject.origin, recipe, here, self.reference, settings)
        return seconds

    def _over(self, one: Measurement) -> str:
        """Which limit a measured recipe breaks, in words; empty if none."""
        record = one.record
        return broken(self.limits, size=record.bytes, bits=record.bits_per_weight, latency=self.latency(one))

    def _fits(self, size: float) -> bool:
        return not broken(self.limits, size=size, bits=self._bits(size), latency=None)

    def _bits(self, size: float) -> float:
        """Bits per weight of a model of the candidate's parameters and so many bytes."""
        record = self.base["full"].record
        return record.bits_per_weight * size / max(1, record.bytes)

    # --- in words

    def _point(self, plan: Plan, one: Measurement, saved: Mean | None) -> Point:
        record = one.record
        latency = self.latency(one) if plan else 0.0
        return Point(plan_name(plan), one.mean, record.bytes, record.bits_per_weight, saved, latency)

    def _trial(self, number: int, done: Done, front: set[str], promoted: set[Plan]) -> Trial:
        one, rung = done.measured, done.proposal.rung
        base = self.base[rung]
        saved = self.saved(done)
        outcome, reason = self._outcome(done, front, promoted, saved)
        kl = None if one is None else estimate(one.kl, one.where, seed=self.seed, low=0.0)
        return Trial(
            number=number,
            treatments=treatments_of(done.proposal.plan),
            recipe=reported_steps(done.recipe),
            rung=rung,
            expected_saved=base.mean - done.proposal.expected_kl,
            outcome=outcome,
            reason=reason,
            refused_code=done.refusal_code,
            bytes=None if one is None else one.record.bytes,
            kl=kl,
            saved=None if one is None else saved,
            seconds=None if one is None else one.record.seconds,
        )

    def _outcome(self, done: Done, front: set[str], promoted: set[Plan], saved: Mean) -> tuple[Outcome, str]:
        """What became of a trial, and why it was refused or which limit it breaks."""
        one, plan = done.measured, done.proposal.plan
        if one is None:
            return "not_applicable", done.refusal
        if one.mean == float("inf"):
            return "no_gain", "its logits are not finite at some positions"
        if over := self._over(one):
            return "over_budget", over
        if (saved.mean or 0.0) <= 0:
            return "no_gain", ""
        if done.proposal.rung == "cheap":
            return ("promoted" if plan in promoted else "not_promoted"), ""
        return ("front" if plan_name(plan) in front else "dominated"), ""

    def _why_not(self, mine: Sequence[Done], best: float | None, *, chosen: bool) -> str:
        """`chosen`: whether another recipe is recommended, which may then have saved more."""
        # Of a recipe that was made in full its cheap trial says nothing more: it may be too slow, or be refused.
        again = {done.proposal.plan for done in mine if done.proposal.rung == "full"}
        last = [done for done in mine if done.proposal.rung == "full" or done.proposal.plan not in again]
        measured = [done.measured for done in last if done.measured is not None]
        if not measured:
            return f"it could not be done: {last[0].refusal}"
        if best is not None and best <= 0:
            return "alone it saved nothing on the documents to choose by"
        over = [self._over(one) for one in measured]
        if all(over):
            return f"beyond the budget: {over[0]}"
        if chosen:
            return "others saved more for as few bytes, or what it saved is not above zero for sure on the test"
        return "what it saved is not above zero for sure, or does not hold on the test documents"

    def _described(self, plan: Plan) -> str:
        """As the report does."""
        return described(treatments_of(plan))

    def _beginning(self, proposal: Proposal, number: int, trials: int) -> str:
        saved = self.base[proposal.rung].mean - proposal.expected_kl
        return (
            f"trial {number} of {trials} ({proposal.rung}) begins: {self._described(proposal.plan)}, expected to "
            f"save {numeral(saved)} nats per token, {proposal.expected_bytes:,} bytes"
        )

    def _line(self, done: Done, number: int, trials: int) -> str:
        head = f"trial {number} of {trials} ({done.proposal.rung}): {self._described(done.proposal.plan)}"
        if done.measured is None:
            return f"{head}: not applicable: {done.refusal}"
        if not math.isfinite(done.measured.mean):
            return f"{head}: its logits are not finite at some positions"
        saved = self.base[done.proposal.rung].mean - done.measured.mean
        change = f"saves {numeral(saved)}" if saved >= 0 else f"loses {numeral(-saved)} more"
        return f"{head}: {change} nats per token, {done.measured.record.bytes:,} bytes"


def treatments_of(plan: Plan) -> tuple[Treatment, ...]:
    """As the report shows them."""
    return tuple(Treatment(name=arm.name, knobs=dict(arm.knobs)) for arm in plan)
