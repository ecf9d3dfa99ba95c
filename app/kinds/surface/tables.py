"""Tables of a surface report: limits, interactions, the cheapest path, the order of the steps, every setting."""

from __future__ import annotations

import math
from collections.abc import Sequence

from app.contracts.report import Mean
from app.kinds.surface.report import Limit, OrderEffect, SurfacePoint, SurfaceReport
from app.kinds.surface.words import (
    DEPARTURES,
    MEASURES,
    SHOWN,
    kind_text,
    label,
    level,
    loss_nats,
    name,
    number_at,
    point_along,
    setting,
    told_of,
)
from app.reports import format as fmt
from app.reports.blocks import Cell, Column, Table
from app.reports.charts.marks import Guide, axis, interval_strip
from app.reports.scales import LinearScale, LogScale
from app.reports.untrusted import visible


def limits(report: SurfaceReport) -> Table:
    """How far each knob goes at each setting of the other."""
    return Table(
        caption=f"How far each knob goes before {level(report)} is passed",
        columns=(
            Column("The other knob at", "text"),
            Column("Knob", "text"),
            Column("Limit"),
            Column("95 % interval", priority=1),
            Column("Furthest whose mean is within", priority=2),
        ),
        rows=tuple(_limit_row(report, limit) for limit in report.contour.limits),
    )


def _limit_row(report: SurfaceReport, limit: Limit) -> tuple[Cell, ...]:
    which = 0 if limit.knob == "first" else 1
    sure = _furthest_sure(report, limit, which)
    return (
        Cell(f"{name(report, 1 - which)} {label(report, 1 - which, limit.at)}"),
        Cell(name(report, which)),
        Cell(limit_text(report, limit), strong=True),
        Cell(limit_interval(report, limit)),
        Cell(
            fmt.NONE if limit.largest is None else label(report, which, limit.largest),
            "" if sure == limit.largest else f"for sure: {'none' if sure is None else label(report, which, sure)}",
        ),
    )


def _furthest_sure(report: SurfaceReport, limit: Limit, which: int) -> int | None:
    """The place of the furthest setting that is within the loss for sure, with every milder one; None: none does."""
    within = {(one.first, one.second): one.within for one in report.points if one.order == "as given"}
    places = range(len(report.knobs[which].values))
    row = [within.get((place, limit.at) if which == 0 else (limit.at, place)) for place in places]
    sure = next((place for place in places if row[place] != "yes"), len(row)) - 1
    return None if sure < 0 else sure


def limit_text(report: SurfaceReport, limit: Limit) -> str:
    """The limit as the knob's value, or between which settings it is."""
    which = 0 if limit.knob == "first" else 1
    if limit.place is None:
        last = label(report, which, len(report.knobs[which].values) - 1)
        return f"beyond {last}"
    if limit.place == 0 and limit.largest is None:
        return _no_loss(report, limit, which, 0) or "already passed"
    if limit.largest is not None and limit.place == limit.largest:
        why = _no_loss(report, limit, which, limit.largest + 1)
        if why:
            return f"{label(report, which, limit.largest)}; {why}"
    if limit.place == 0:
        return label(report, which, 0)
    if limit.value is not None:
        return fmt.number(limit.value)
    low = math.floor(limit.place)
    high = min(low + 1, len(report.knobs[which].values) - 1)
    return f"{label(report, which, low)} to {label(report, which, high)}"


def _no_loss(report: SurfaceReport, limit: Limit, which: int, place: int) -> str:
    """Why the setting at a place of a limit's row has no loss; empty if it has one, or there is no such one."""
    if place == len(report.knobs[which].values):
        return ""
    point = point_along(report, which, limit.at, place)
    if point is None or point.loss.mean is not None:
        return ""
    there = label(report, which, place)
    return f"the model cannot take {there}" if point.refused else f"{there} gives no finite logits"


def limit_interval(report: SurfaceReport, limit: Limit) -> str:
    """Its interval in the knob's unit; an end beyond the range is reported so, and so is that there is none."""
    if limit.ci is None:
        return "too few documents"
    which = 0 if limit.knob == "first" else 1
    low, high = limit.ci
    if limit.place == 0 and low == high:
        return fmt.NONE
    if low is None and high is None:
        return "beyond the range"
    ends = [value for value in (low, high) if value is not None]
    if all(number_at(report, which, place) is not None for place in range(len(report.knobs[which].values))):
        texts = [fmt.number(value) for value in sorted(ends)]
    else:
        texts = _told_places(report, which, ends)
    if len(texts) == 2:
        return f"[{texts[0]}, {texts[1]}]"
    return f"from {texts[0]} to beyond"


def _told_places(report: SurfaceReport, which: int, places: Sequence[float]) -> list[str]:
    """Places along a knob as its values: the knob's number there, in ascending order if all of them are numbers.

    Between two settings of which one is no number, it is the name of the one further out.
    """
    numbers = [number_at(report, which, place) for place in places]
    known = [number for number in numbers if number is not None]
    if len(known) == len(places):
        return [fmt.number(number) for number in sorted(known)]
    return [
        label(report, which, math.ceil(place) if index else math.floor(place)) if number is None else fmt.number(number)
        for index, (place, number) in enumerate(zip(places, numbers, strict=True))
    ]


def interactions(report: SurfaceReport) -> Table:
    """I of every setting of both knobs."""
    spans = [
        bound for row in report.interactions for bound in (row.nats.mean, *(row.nats.ci or ())) if bound is not None
    ]
    wide = max([abs(value) for value in spans] or [1.0]) or 1.0
    scale = LinearScale(-1.08 * wide, 1.08 * wide)
    rows = []
    for row in report.interactions:
        nats = fmt.estimate(row.nats.mean, row.nats.ci)
        where = setting(report, row.first, row.second, row.order)
        rows.append(
            (
                Cell(where),
                Cell(nats.value, nats.interval or "no interval", strong=row.kind in DEPARTURES),
                Cell(
                    chart=interval_strip(
                        f"{where}: {nats} nats", row.nats.mean, row.nats.ci, scale, [Guide(0.0, "base")]
                    )
                ),
                Cell(p_text(row.p)),
                Cell(kind_text(row, report.margin), strong=row.kind in DEPARTURES),
            )
        )
    return Table(
        caption="Interactions",
        columns=(
            Column("Setting", "name"),
            Column("I, nats per token"),
            Column("With 95 % interval", "chart"),
            Column("p, corrected", priority=1),
            Column("", "text"),
        ),
        rows=tuple(rows),
        axis=axis(scale, "nats; right of 0 they compound"),
        style="stack strips",
    )


def p_text(p: float | None) -> str:
    """A p-value in three decimals."""
    if p is None:
        return fmt.NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def path(report: SurfaceReport) -> Table:
    """From the largest model to the smallest."""
    chosen = report.chosen
    values = [loss_nats(report, row.loss) for row in report.path]
    ends = [
        bound for row in report.path for bound in (row.loss.ci or ()) if report.contour.measure == "kl" and bound > 0
    ]
    scale = LogScale.around(*[value for value in values if value and value > 0], *ends)
    largest = report.path[0].bytes if report.path else 1
    rows = []
    for row, nats in zip(report.path, values, strict=True):
        loss = fmt.estimate(row.loss.mean, row.loss.ci)
        mine = (row.first, row.second, row.order) == (chosen.first, chosen.second, chosen.order)
        where = setting(report, row.first, row.second, row.order)
        ci = _ci_nats(report, row.loss)
        rows.append(
            (
                Cell(where, told_of(report).removesuffix(" setting") if mine else "", strong=mine),
                Cell(fmt.size(row.bytes), f"{fmt.number(100 * row.bytes / max(1, largest), 3)} %"),
                Cell(loss.value, loss.interval or "no interval", strong=True),
                Cell(chart=interval_strip(f"{where}: {loss}", nats, ci, scale, [])),
            )
        )
    measure = MEASURES[report.contour.measure]
    return Table(
        caption="The cheapest path",
        columns=(
            Column("Setting", "name"),
            Column("Size"),
            Column(f"{measure}{', nats' if report.contour.measure == 'kl' else ''}"),
            Column("With 95 % interval", "chart"),
        ),
        rows=tuple(rows),
        axis=axis(scale, f"{'KL' if report.contour.measure == 'kl' else 'ln of the ratio'} in nats, logarithmic axis"),
        style="stack strips",
    )


def _ci_nats(report: SurfaceReport, loss: Mean) -> tuple[float, float] | None:
    if loss.ci is None:
        return None
    low, high = (loss_nats(report, Mean(mean=bound, ci=None)) or 0.0 for bound in loss.ci)
    return low, high


def orders(report: SurfaceReport) -> Table:
    """Exchanged minus as given, each measure with its own p."""
    rows = []
    for row in report.order_effects:
        log, kl = fmt.estimate(row.log_perplexity.mean, row.log_perplexity.ci), fmt.estimate(row.kl.mean, row.kl.ci)
        rows.append(
            (
                Cell(setting(report, row.first, row.second)),
                Cell(log.value, log.interval or "no interval"),
                Cell(p_text(row.p)),
                Cell(kl.value, kl.interval or "no interval"),
                Cell(p_text(row.p_kl)),
                Cell(_better(row)),
            )
        )
    return Table(
        caption="Exchanged order minus order as given, paired by token",
        columns=(
            Column("Setting", "name"),
            Column("ln PPL, nats per token"),
            Column("p of ln PPL, corrected"),
            Column("KL, nats per token"),
            Column("p of KL, corrected"),
            Column("", "text"),
        ),
        rows=tuple(rows),
    )


def _better(row: OrderEffect) -> str:
    """Which order does better, by each measure that shows a difference."""
    found: dict[str, list[str]] = {}
    for name_, mean, p in (("ln PPL", row.log_perplexity, row.p), ("KL", row.kl, row.p_kl)):
        if p is not None and p < SHOWN:
            found.setdefault("exchanged" if (mean.mean or 0.0) < 0 else "as given", []).append(name_)
    return "; ".join(f"{order} is better by {' and '.join(by)}" for order, by in found.items()) or "no difference shown"


def points(report: SurfaceReport) -> Table:
    """Every setting against the reference."""
    kernels = any(one.kernel_term is not None or one.no_kernel_term for one in report.points)
    rows = []
    for one in report.points:
        kl, ratio = (
            fmt.estimate(one.kl.mean, one.kl.ci),
            fmt.estimate(one.perplexity_ratio.mean, one.perplexity_ratio.ci),
        )
        top1 = fmt.estimate(one.top1_agreement.mean, one.top1_agreement.ci, percent=True)
        notes = [visible(one.refused)] if one.refused else []
        notes += [f"{fmt.count(one.nonfinite_positions)} positions not finite"] if one.nonfinite_positions else []
        rows.append(
            (
                Cell(setting(report, one.first, one.second, one.order), "; ".join(notes)),
                Cell(fmt.number(one.perplexity, 4)),
                Cell(ratio.value, ratio.interval or ""),
                Cell(kl.value, kl.interval or ""),
                Cell(top1.value, top1.interval or ""),
                Cell(one.severity or fmt.NONE),
                Cell(one.within),
                *([_kernel(one)] if kernels else []),
                Cell(fmt.NONE if one.bytes is None else fmt.size(one.bytes)),
                Cell(fmt.NONE if one.sparse_bytes is None else fmt.size(one.sparse_bytes)),
            )
        )
    return Table(
        caption="Every setting against the reference",
        columns=(
            Column("Setting", "name"),
            Column("Perplexity", priority=2),
            Column("Ratio q/p", priority=2),
            Column("KL, nats"),
            Column("Top-1, %", priority=3),
            Column("Severity", "text"),
            Column("Within", "text"),
            *([Column("Kernel term, nats", priority=2)] if kernels else []),
            Column("Size", priority=1),
            Column("Without zeros", priority=3),
        ),
        rows=tuple(rows),
    )


def _kernel(point: SurfacePoint) -> Cell:
    if point.kernel_term is None:
        return Cell(fmt.NONE, visible(point.no_kernel_term))
    term = point.kernel_term.kl
    shown = fmt.estimate(term.mean, term.ci)
    return Cell(shown.value, shown.interval or "no interval")
