"""The report of a mitigate job, from trials, front and the one reading of the test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from app.contracts.notice import Notice
from app.contracts.notices import Untested
from app.contracts.report import Blocks, Mean, SeverityVerdict
from app.kinds.mitigate.notices import MitigateNotice
from app.kinds.mitigate.report import (
    NO_DAMAGE,
    Answer,
    Damage,
    FrontPoint,
    MitigateReport,
    Seal,
    Unhelpful,
)
from app.kinds.mitigate.request import MitigateRequest, TreatmentName
from app.recipes.notices import made
from workers.analysis.numerals import numeral
from workers.diagnosis.mitigate.front import RULE, Point, broken
from workers.diagnosis.mitigate.trials import Done, TrialRunner, treatments_of
from workers.measuring.assemble import Conditions, envelope, provenance
from workers.measuring.floor import Floor
from workers.measuring.limitations import limits_of, without
from workers.measuring.means import GAINED, ratio
from workers.measuring.recipes import Measurement, estimate
from workers.measuring.sets import Part, Sets
from workers.measuring.sides import Sides
from workers.measuring.subject import fields_of, reported_steps
from workers.measuring.summary import Summary, summarize
from workers.measuring.verdict import decide
from workers.process.handler import JobContext

_WITHOUT_RECIPE: Final[Mapping[Answer, str]] = {
    "no_damage": "Nothing to treat: on the test documents the candidate's distribution is the reference's.",
    "no_damage_that_matters": "Nothing to treat: the candidate loses {kl} on the test documents, less than what is "
    "mild, and no recipe that was tried takes it away for sure.",
    "does_not_hold": "Nothing that helps for sure: what was chosen does not hold on the test documents. The candidate "
    "loses {kl} there.",
    "nothing_tried": "Nothing could be tried: no allowed treatment fits this candidate and its budget. It loses {kl} "
    "on the test documents.",
    "nothing_helps": "Nothing helps: no recipe that was measured in full saves KL for sure within the budget. The "
    "candidate loses {kl} on the test documents.",
}


@dataclass(frozen=True)
class Tested:
    """What the one reading of the test gave. `measured` by the key of the front's points; "" is the candidate."""

    part: Part
    floor: Floor
    front: Sequence[tuple[Point, Done | None]]
    recommended: Point | None
    measured: Mapping[str, Measurement]
    frozen: str
    opened_at: float

    @property
    def raw(self) -> Measurement:
        """The candidate on the test."""
        return self.measured[""]

    def saved(self, key: str, seed: int) -> Mean:
        """What a point saves on the test, paired by position."""
        return estimate(self.raw.kl - self.measured[key].kl, self.part.where, seed=seed)

    def removed(self, key: str, seed: int) -> Mean | None:
        """Which share of the candidate's KL on the test a point removes, paired by position; None if there is none
        to remove."""
        raw = self.raw.kl
        return ratio(raw - self.measured[key].kl, raw, self.part.where, seed=seed, support=GAINED)

    def helps(self, seed: int) -> bool:
        """Whether the recommended recipe saves more than nothing on the test, for sure."""
        return self.recommended is not None and self.saves(self.recommended.key, seed)

    def saves(self, key: str, seed: int) -> bool:
        """Whether a point saves more than nothing on the test, for sure; one whose logits are not finite somewhere does
        not."""
        if not math.isfinite(self.measured[key].mean):
            return False
        ci = self.saved(key, seed).ci
        return ci is not None and ci[0] > 0

    def done(self) -> Done | None:
        """The trial that is recommended."""
        return next(
            (done for point, done in self.front if self.recommended is not None and point.key == self.recommended.key),
            None,
        )


@dataclass(frozen=True)
class Found:
    """All that a mitigate job found out."""

    request: MitigateRequest
    sides: Sides
    sets: Sets
    runner: TrialRunner
    why: Mapping[TreatmentName, str]
    damage: Damage
    tested: Tested
    profiles: tuple[str, ...]
    conditions: Conditions


def build_report(found: Found, context: JobContext) -> MitigateReport:
    """Statistics of candidate and recommended model, front, trials, worst tokens before and after."""
    request, tested, runner = found.request, found.tested, found.runner
    seed = request.seed
    helped = tested.helps(seed)
    done = tested.done() if helped else None
    key = tested.recommended.key if helped and tested.recommended is not None else ""
    raw = _summary(found, tested.raw, context)
    now = _summary(found, tested.measured[key], context) if key else raw
    decisions = [
        decide(one.excess, request.thresholds, nonfinite=one.nonfinite_positions, floor=one.floor) for one in (raw, now)
    ]
    answer = answer_of(found, decisions[0], raw, helped=helped)
    corpus = found.sets.test
    saved = tested.saved(key, seed) if key else None
    removed = tested.removed(key, seed) if key else None
    front = tuple(_point(point, one, found, helped=helped) for point, one in tested.front)
    source = provenance(request, found.conditions, sides=found.sides, corpus=corpus)
    recipe = None if done is None else reported_steps(done.recipe)
    return MitigateReport(
        answer=answer,
        verdict=sentence(answer, found, decisions, (raw, now), removed),
        raw=Blocks(**raw.common()),
        raw_severity=decisions[0].severity,
        saved=saved,
        removed=removed,
        front=front,
        recommended=recipe,
        rule=RULE,
        budget=runner.limits,
        candidate_bytes=runner.subject.bytes,
        damage=found.damage,
        trials=runner.trials([point.key for point, _ in tested.front]),
        unhelpful=_unhelpful(found, done),
        profiles=found.profiles,
        sets=found.sets.records(),
        seal=Seal(frozen=tested.frozen, opened_at=tested.opened_at),
        not_tested=_not_tested(found),
        warnings=tuple(_warnings(found, done)),
        **now.of_report(),
        **envelope(request, context, decisions[1], tested.floor, source),
    )


def answer_of(found: Found, before: SeverityVerdict, raw: Summary, *, helped: bool) -> Answer:
    """Why nothing is recommended, unless something `helped`. `before` and `raw` are of the candidate on the test."""
    if helped:
        return "treated"
    kl = raw.divergence.kl.mean
    if kl is not None and kl < NO_DAMAGE:
        return "no_damage"
    if before.classes == ("none",):
        return "no_damage_that_matters"
    if found.tested.recommended is not None:
        return "does_not_hold"
    return "nothing_helps" if found.runner.done else "nothing_tried"


def sentence(
    answer: Answer,
    found: Found,
    decisions: Sequence[SeverityVerdict],
    summaries: Sequence[Summary],
    removed: Mean | None,
) -> str:
    """The answer in one sentence. `decisions` and `summaries`: of the candidate, and of the recommended model."""
    before, after = (_number(one.divergence.kl.mean) for one in summaries)
    recommended = found.tested.recommended
    if removed is None or recommended is None:
        return _WITHOUT_RECIPE[answer].format(kl=f"{before} nats per token")
    share = f"{numeral(100 * (removed.mean or 0.0))} %"
    if removed.ci is not None:
        share += f" [{numeral(100 * removed.ci[0])}, {numeral(100 * removed.ci[1])}]"
    base = found.runner.subject.bytes
    more = recommended.bytes - base
    percent = numeral(abs(100 * more / max(1, base)))
    growth = f"{percent} % {'more' if more > 0 else 'fewer'} bytes" if more else "as many bytes"
    was, is_ = map(_classes, decisions)
    change = f"the damage is {is_}, and was {was}" if was != is_ else f"the damage stays {is_}"
    return (
        f"Treated: the recommended recipe takes {share} of the KL away on test documents, from {before} to {after} "
        f"nats per token, for {growth}; {change}."
    )


def _summary(found: Found, measurement: Measurement, context: JobContext) -> Summary:
    return summarize(
        measurement.values,
        found.tested.part.where,
        [document.domain for document in found.sets.test.documents],
        window=found.request.window,
        floor_kl=found.tested.floor.kl,
        seed=found.request.seed,
        check_cancelled=context.check_cancelled,
    )


def _point(point: Point, done: Done | None, found: Found, *, helped: bool) -> FrontPoint:
    runner, tested, seed = found.runner, found.tested, found.request.seed
    own = runner.base["full"] if done is None or done.measured is None else done.measured
    test = tested.measured[point.key]
    recommended = helped and tested.recommended is not None and point.key == tested.recommended.key
    recipe = found.request.candidate.recipe if done is None else done.recipe
    return FrontPoint(
        recipe=reported_steps(recipe),
        treatments=() if done is None else treatments_of(done.proposal.plan),
        bytes=point.bytes,
        bits_per_weight=point.bits_per_weight,
        kl=estimate(test.kl, tested.part.where, seed=seed, low=0.0),
        saved=None if done is None else tested.saved(point.key, seed),
        tokens_per_second=own.record.tokens_per_second or 0.0,
        tokens_per_second_range=own.record.tokens_per_second_range,
        added_latency=None if done is None else point.added_latency,
        within_budget=not broken(
            runner.limits, size=point.bytes, bits=point.bits_per_weight, latency=point.added_latency
        ),
        recommended=recommended,
        weights_fingerprint=own.record.weights,
    )


def _unhelpful(found: Found, done: Done | None) -> tuple[Unhelpful, ...]:
    """What did not help; where nothing is recommended, nothing did. What helps for fewer bytes than the recommended
    recipe takes has its place on the front."""
    tested, seed = found.tested, found.request.seed
    on_front = [(point.key, other.proposal.plan) for point, other in tested.front if other is not None]
    helpful = [] if done is None else [plan for key, plan in on_front if tested.saves(key, seed)]
    listed = list(found.runner.unhelpful(found.request.treatments, found.why, helpful))
    if "calibration" in found.request.treatments:
        reason = (
            "it changes no weight: serve one of the profiles that exist for this candidate beside it"
            if found.profiles
            else "no profile was fitted for this candidate: hemostat calibrate fits one and proves it"
        )
        listed.append(Unhelpful(treatment="calibration", reason=reason))
    return tuple(listed)


def _not_tested(found: Found) -> tuple[Notice, ...]:
    listed = limits_of(found.sets.test, found.tested.part.where, found.request.test_text or found.request.text)
    return (*without(listed, Untested.SPEED_AND_MEMORY), MitigateNotice.SPEED_AND_MEMORY())


def _warnings(found: Found, done: Done | None) -> list[Notice]:
    """`done` is what is recommended."""
    tested = found.tested
    listed = list(found.sets.warnings)
    documents = len(np.unique(tested.part.where.document))
    if tested.raw.where.document.size and documents < 6:
        listed.append(MitigateNotice.FEW_TEST_DOCUMENTS(documents=documents))
    if done is None:
        return listed
    if done.measured is not None:
        # steps of one type, for some layers each, say the same
        told = dict.fromkeys(done.measured.record.warnings)
        listed += [made("the recommended recipe", warning) for warning in told]
    sources = {fields_of(step).get("calibration", {}).get("source") for step in done.recipe}
    if "inline" in sources:
        listed.append(MitigateNotice.LOOKS_AT_SENT_DOCUMENTS())
    if "self" in sources:
        listed.append(MitigateNotice.LOOKS_AT_SAMPLED_TEXT())
    return listed


def _classes(decision: SeverityVerdict) -> str:
    """The class, or all that its interval touches."""
    names = decision.classes
    return " or ".join(names) if len(names) < 3 else f"anything from {names[0]} to {names[-1]}"


def _number(value: float | None) -> str:
    return "no finite number of" if value is None else numeral(value)
