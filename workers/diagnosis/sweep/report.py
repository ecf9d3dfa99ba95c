"""From the measured points of a knob to the report."""

from __future__ import annotations

from dataclasses import dataclass

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.notice import Notice
from app.contracts.notices import Warned
from app.contracts.report import ModelProvenance, Provenance
from app.kinds.sweep.notices import SweepNotice
from app.kinds.sweep.report import SweepPoint, SweepReport, SweptKnob, Threshold
from app.kinds.sweep.request import SweepRequest
from app.kinds.sweep.view import verdict_of
from app.models.shares import in_words
from workers.diagnosis.sweep.course import Course, MeasuredPoint
from workers.diagnosis.sweep.fits import threshold_of
from workers.diagnosis.sweep.limits import mild, near_lossless
from workers.measuring.assemble import Conditions, envelope, provenance, repeated_documents
from workers.measuring.limitations import limits_of
from workers.measuring.points.ground import Ground
from workers.measuring.points.naming import swept_fingerprint, swept_recipe
from workers.process.handler import JobContext


@dataclass(frozen=True)
class Swept:
    """All that a sweep found out."""

    request: SweepRequest
    ground: Ground
    course: Course
    conditions: Conditions


def build_report(swept: Swept, context: JobContext) -> SweepReport:
    """Fits, limits, points and words. Raises RECIPE_NOT_APPLICABLE if the model takes none of the settings."""
    request, course, ground = swept.request, swept.course, swept.ground
    strongest = _strongest(course)
    corpus = ground.part.corpus
    knob = _knob(swept)
    fitted = {
        "threshold": threshold_of(
            course, "perplexity", request.bounds, seed=request.seed, check=context.check_cancelled
        ),
        "threshold_kl": threshold_of(course, "kl", request.bounds, seed=request.seed, check=context.check_cancelled),
    }
    thresholds = {name: found if isinstance(found, Threshold) else None for name, found in fitted.items()}
    why = next((found for found in fitted.values() if isinstance(found, str)), "")
    decision = strongest.record.decision
    assert decision is not None  # noqa: S101 - a measured point has one
    report = SweepReport(
        verdict="",
        tokens=len(ground.part.where),
        documents=len(corpus.documents),
        windows=len(corpus.windows),
        nonfinite_positions=strongest.record.nonfinite_positions,
        knob=knob,
        reference_perplexity=_reference_perplexity(course),
        points=tuple(_point(point) for point in course.points),
        threshold=thresholds["threshold"],
        threshold_kl=thresholds["threshold_kl"],
        no_threshold=why,
        near_lossless=near_lossless(course, seed=request.seed),
        largest_mild=mild(course, request.thresholds),
        not_tested=(SweepNotice.SETTINGS_BETWEEN(), *limits_of(corpus, ground.part.where, request.text)),
        warnings=tuple(_warnings(swept, fitted=any(thresholds.values()))),
        **envelope(request, context, decision, ground.run.floor, _provenance(swept)),
    )
    return report.model_copy(update={"verdict": verdict_of(report)})


def _strongest(course: Course) -> MeasuredPoint:
    measured = [point for point in course.points if not point.record.refused]
    if not measured:
        first = course.points[0]
        raise HemostatError(
            ErrorCode.RECIPE_NOT_APPLICABLE,
            f"the model takes none of the settings: {first.record.refused}",
            hint="give other values, or another recipe",
            pointer="/candidate/recipe",
        )
    return measured[-1]


def _knob(swept: Swept) -> SweptKnob:
    knob = swept.request.knobs[0]
    known, order = all(point.s is not None for point in swept.course.points), swept.course.order
    return SweptKnob(
        step=knob.step,
        type=str(getattr(swept.request.candidate.recipe[knob.step], "type", "")),
        field=knob.field,
        values=knob.values,
        share=in_words(knob.field) if known else None,
        axis=swept.course.axis_kind,
        order="given" if order is None else order.kind,
        neutral=None if order is None else order.neutral,
    )


def _point(point: MeasuredPoint) -> SweepPoint:
    record = point.record
    return SweepPoint(
        value=point.value,
        s=point.s,
        divergence=record.divergence,
        perplexity=record.perplexity,
        excess_kl=record.excess_kl,
        top1_agreement=record.top1_agreement,
        severity=record.severity,
        classes=record.classes,
        nonfinite_positions=record.nonfinite_positions,
        bytes=record.bytes,
        bits_per_weight=record.bits_per_weight,
        weights_fingerprint=record.weights_fingerprint,
        seconds_making=record.seconds_making,
        seconds_measuring=record.seconds_measuring,
        warnings=record.warnings,
        refused=record.refused,
        refused_code=record.refused_code,
        by=record.by,
        kernel_term=point.kernel.term,
        no_kernel_term=point.kernel.missing,
    )


def _reference_perplexity(course: Course) -> float | None:
    known = [point.record.perplexity for point in course.points if point.record.perplexity is not None]
    return known[0].reference if known else None


def _warnings(swept: Swept, *, fitted: bool) -> list[Notice]:
    course, corpus, listed = swept.course, swept.ground.part.corpus, list[Notice]()
    documents = len(corpus.documents)
    if documents < 6:
        listed.append(Warned.FEW_DOCUMENTS(documents=documents))
    listed += repeated_documents(corpus)
    listed += swept.ground.allowed
    limit = swept.ground.run.context
    if limit is not None:
        listed.append(SweepNotice.LONGER_THAN_REFERENCE(tokens=limit, position=limit - 1))
    refused = sum(bool(point.record.refused) for point in course.points)
    if refused:
        listed.append(SweepNotice.REFUSED_SETTINGS(settings=refused))
    broken = sum(point.record.nonfinite_positions > 0 for point in course.points)
    if broken:
        listed.append(SweepNotice.NONFINITE_SETTINGS(settings=broken))
    shares = [point.s for point in course.points if point.s is not None]
    if len(set(shares)) < len(shares):
        listed.append(SweepNotice.SHARED_SHARES(fits="the fits" if fitted else ""))
    return listed


def _provenance(swept: Swept) -> Provenance:
    request, ground = swept.request, swept.ground
    source = provenance(request, swept.conditions, sides=ground.sides, corpus=ground.part.corpus)
    candidate = ModelProvenance(
        model=ground.sides.candidate.alias,
        weights_fingerprint=ground.origin_weights,
        recipe=swept_recipe(request),
        recipe_fingerprint=swept_fingerprint(request),
        scheme=ground.sides.candidate.info.scheme,
        bits_per_weight=None,
        bytes=None,
    )
    return source.model_copy(update={"candidate": candidate})
