"""From the measured settings to the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.report import Divergence, Mean, ModelProvenance, Perplexity, Provenance, SeverityVerdict
from app.kinds.surface.notices import SurfaceNotice
from app.kinds.surface.plan import Axis, Cell, zero_of
from app.kinds.surface.report import Chosen, SurfaceKnob, SurfacePoint, SurfaceReport
from app.kinds.surface.request import SurfaceRequest
from app.kinds.surface.words import sentence
from app.models.recipes import recipe_fingerprint
from workers.diagnosis.surface.table import Table
from workers.diagnosis.surface.warnings import warnings
from workers.measuring.assemble import Conditions, envelope, provenance, repeated_documents
from workers.measuring.limitations import limits_of
from workers.measuring.points.ground import Ground
from workers.measuring.points.kernels import NO_KERNEL, Kernel
from workers.measuring.points.record import PointRecord
from workers.measuring.subject import reported_steps
from workers.process.handler import JobContext

_NOTHING = Mean(mean=None, ci=None)


@dataclass(frozen=True)
class Found:
    """All that a surface job measured."""

    request: SurfaceRequest
    ground: Ground
    cells: Sequence[Cell]
    records: Sequence[PointRecord]
    kernels: Sequence[Kernel]
    conditions: Conditions


def build_report(found: Found, context: JobContext) -> SurfaceReport:
    """Interactions, contour, path, order effects, and the setting that the common blocks speak of.

    Raises NONFINITE_LOGITS if no setting that changes the model is finite at every position, RECIPE_NOT_APPLICABLE
    where the model takes none.
    """
    request, ground = found.request, found.ground
    table = Table(
        request,
        found.cells,
        found.records,
        ground.window_documents,
        found.kernels,
    )
    if not table.changed():
        _check_made(table)
        raise HemostatError(
            ErrorCode.NONFINITE_LOGITS,
            "no setting that changes the model gives finite logits at every position, so nothing can be compared",
            hint="give milder values",
        )
    context.check_cancelled()
    interactions = table.interactions()
    context.check_cancelled()
    contour = table.contour()
    chosen = table.chosen()
    cell, record = table.cells[chosen], table.sized[chosen]
    divergence, top1, perplexity, decision = _blocks(record)
    corpus = ground.part.corpus
    report = SurfaceReport(
        verdict="",
        tokens=len(ground.part.where),
        documents=np.unique(ground.part.where.document).size,
        windows=len(corpus.windows),
        divergence=divergence,
        top1_agreement=top1,
        perplexity=perplexity,
        nonfinite_positions=record.nonfinite_positions,
        knobs=(_knob(request, table.axes[0]), _knob(request, table.axes[1])),
        zero=zero_of(request),
        orders=("as given", "reversed") if request.orders == "both" else ("as given",),
        points=tuple(_point(table, index) for index in range(len(found.cells))),
        interactions=interactions,
        margin=request.additive_margin,
        contour=contour,
        storage=request.storage,
        path=table.path(),
        order_effects=table.order_effects(),
        chosen=Chosen(
            first=cell.first,
            second=cell.second,
            order=cell.order,
            within=table.within(chosen) == "yes",
            recipe=reported_steps(cell.recipe),
        ),
        not_tested=(
            SurfaceNotice.SETTINGS_BETWEEN(),
            *((SurfaceNotice.OTHER_ORDER(),) if _other_order_left_out(request) else ()),
            *limits_of(corpus, ground.part.where, request.text),
        ),
        warnings=(*repeated_documents(ground.part.corpus), *ground.allowed, *warnings(table)),
        **envelope(request, context, decision, ground.run.floor, _provenance(found, cell, record)),
    )
    return report.model_copy(update={"verdict": sentence(report)})


def _other_order_left_out(request: SurfaceRequest) -> bool:
    """Two knobs in one step have no other order."""
    return request.orders == "as given" and zero_of(request) == "left out"


def _blocks(record: PointRecord) -> tuple[Divergence, Mean, Perplexity, SeverityVerdict]:
    """Of a whole point, which has all of them."""
    divergence, top1, perplexity, decision = (
        record.divergence,
        record.top1_agreement,
        record.perplexity,
        record.decision,
    )
    if divergence is None or top1 is None or perplexity is None or decision is None:
        raise RuntimeError("a point that was measured has no divergence")
    return divergence, top1, perplexity, decision


def _check_made(table: Table) -> None:
    """Raises RECIPE_NOT_APPLICABLE if no setting that changes the model could be made."""
    records = [record for cell, record in zip(table.cells, table.records, strict=True) if cell.recipe]
    if records and all(record.refused for record in records):
        raise HemostatError(
            ErrorCode.RECIPE_NOT_APPLICABLE,
            f"the model takes none of the settings: {records[0].refused}",
            hint="give other values, or another recipe",
            pointer="/candidate/recipe",
        )


def _knob(request: SurfaceRequest, axis: Axis) -> SurfaceKnob:
    step = request.candidate.recipe[axis.knob.step]
    return SurfaceKnob(
        step=axis.knob.step,
        type=step.type,
        field=axis.knob.field,
        values=axis.values,
        zero=axis.zero if axis.left_out else None,
    )


def _point(table: Table, index: int) -> SurfacePoint:
    cell, record = table.cells[index], table.sized[index]
    kl = None if record.divergence is None else record.divergence.kl
    perplexity = record.perplexity
    kernel = table.kernels[index] if table.kernels else NO_KERNEL
    return SurfacePoint(
        first=cell.first,
        second=cell.second,
        order=cell.order,
        recipe=reported_steps(cell.recipe),
        refused=record.refused,
        refused_code=record.refused_code,
        bytes=record.bytes,
        sparse_bytes=record.sparse_bytes,
        bits_per_weight=record.bits_per_weight,
        weights_fingerprint=record.weights_fingerprint,
        kl=_NOTHING if kl is None else Mean(mean=kl.mean, ci=kl.ci, clusters=kl.clusters),
        perplexity=None if perplexity is None else perplexity.candidate,
        perplexity_ratio=_NOTHING if perplexity is None else perplexity.ratio,
        top1_agreement=record.top1_agreement or _NOTHING,
        severity=record.severity,
        loss=table.loss_means[index],
        within=table.within(index),
        nonfinite_positions=record.nonfinite_positions,
        kernel_term=kernel.term,
        no_kernel_term=kernel.missing,
    )


def _provenance(found: Found, cell: Cell, record: PointRecord) -> Provenance:
    """As of any job; its candidate is the chosen setting."""
    ground = found.ground
    source = provenance(found.request, found.conditions, sides=ground.sides, corpus=ground.part.corpus)
    if not cell.recipe:
        return source
    candidate = ModelProvenance(
        model=source.candidate.model,
        weights_fingerprint=record.weights_fingerprint or "",
        recipe=reported_steps(cell.recipe),
        recipe_fingerprint=recipe_fingerprint(cell.recipe),
        scheme=record.scheme or "simulated",
        bits_per_weight=record.bits_per_weight,
        bytes=record.bytes,
    )
    return source.model_copy(update={"candidate": candidate})
