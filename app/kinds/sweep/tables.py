"""Tables of a sweep: points, limits, effort."""

from __future__ import annotations

from app.kinds.sweep.report import SweepPoint, SweepReport
from app.kinds.sweep.words import NO_ORDER, UNJUDGED, in_order, largest_within, last_mild, passed, setting, severity
from app.models.knobs import told
from app.reports import format as fmt
from app.reports.blocks import Cell, Column, Table
from app.reports.charts.marks import Guide, axis, interval_strip
from app.reports.scales import LogScale
from app.reports.untrusted import visible


def points(report: SweepReport) -> Table:
    """Every measured setting."""
    known = [
        value
        for point in report.points
        if point.divergence is not None
        for value in (point.divergence.kl.mean, *(point.divergence.kl.ci or ()))
        if value and value > 0
    ]
    scale = LogScale.around(*known)
    shares = report.knob.share is not None and any(point.s != point.value for point in report.points)
    columns = [Column(visible(report.knob.field), "name")]
    columns += [Column("s", priority=3)] if shares else []
    kernels = has_kernels(report)
    columns += [
        Column("Severity", "text"),
        Column("KL, nats"),
        Column("With 95 % interval", "chart"),
        Column("p99 of KL", priority=3),
        Column("Perplexity", priority=3),
        Column("Perplexity ratio", priority=1),
        Column("Top-1 agreement, %", priority=2),
        *([Column("Kernel term, nats")] if kernels else []),
        Column("Size", priority=2),
    ]
    rows = [_row(report, point, scale, shares=shares, kernels=kernels) for point in report.points]
    return Table(
        caption=visible(f"Every measured setting, {in_order(report)}"),
        columns=tuple(columns),
        rows=tuple(rows),
        axis=axis(scale, "KL in nats, logarithmic axis"),
        style="stack strips",
    )


def points_note(report: SweepReport) -> str:
    """What the columns are."""
    return visible(
        "KL is KL(reference‖candidate) over all scored tokens of the same text at every setting; ratios are paired by "
        f"position. The unmodified model’s perplexity is {fmt.number(report.reference_perplexity, 4)}."
        + (f" Here {report.knob.share}." if report.knob.share else "")
        + (f" {kernels_note(report)}" if has_kernels(report) else "")
    )


def has_kernels(report: SweepReport) -> bool:
    """Whether a setting is packed."""
    return any(point.kernel_term is not None or point.no_kernel_term for point in report.points)


def kernels_note(report: SweepReport) -> str:
    """What the kernel term is, and why settings have none."""
    tokens = [point.kernel_term.tokens for point in report.points if point.kernel_term is not None]
    over = f", over {fmt.count(tokens[0])} tokens of the text" if tokens else ""
    what = (
        "The kernel term is KL(dequantized‖packed): what the kernels that serve a packed setting add to what its "
        f"weights lose, part of the KL beside it{over}."
    )
    missing: dict[str, list[str]] = {}
    for point in report.points:
        if point.no_kernel_term:
            missing.setdefault(point.no_kernel_term, []).append(setting(report, point.value))
    return what + "".join(f" Not known of {', '.join(names)}: {why}." for why, names in missing.items())


def limits(report: SweepReport) -> Table:
    """The answers without a form."""
    each = (
        (
            "Stays mild",
            report.largest_mild,
            "nats of excess KL",
            "the upper 95 % limit of the excess KL stays below the limit",
        ),
        (
            "Near-lossless by perplexity",
            report.near_lossless,
            "of ln perplexity",
            "the published rule, 1.5 more points on a reference of 6.157, taken as a ratio; the KL may be severe",
        ),
    )
    rows = tuple(
        (
            Cell(name),
            Cell(largest_within(limit), strong=True),
            Cell(*passed(report, limit)),
            Cell(f"{fmt.number(limit.limit)} {unit}"),
            Cell(rule),
        )
        for name, limit, unit, rule in each
        if limit is not None
    )
    return Table(
        caption="How far one may go, without any form",
        columns=(
            Column("", "name"),
            Column("Largest setting"),
            Column("Limit is passed at"),
            Column("Limit"),
            Column("Rule", "text"),
        ),
        rows=rows,
    )


def limits_note(report: SweepReport) -> str:
    """How they were found."""
    if report.knob.order == "unknown":
        return f"{NO_ORDER[:1].upper()}{NO_ORDER[1:]}."
    return (
        "The largest setting is the strongest measured one that stays within the limit together with every weaker one. "
        "Where the limit is passed is interpolated between measured settings; an end of the interval before the "
        "weakest or beyond the strongest is outside them. It holds what was not measured between two "
        "settings. If the knob removes a share of the model, damage grows ever faster: it then reaches from where a "
        "straight line would pass the limit to the stronger setting. Of any other knob, next to no damage, "
        "and before a collapse, it is the whole gap. Near-lossless is looser than mild, and says nothing of tasks: "
        "`hemostat tasks` asks them of a setting."
    )


def effort(report: SweepReport) -> str:
    """Seconds of all points."""
    making = sum(point.seconds_making for point in report.points)
    measuring = sum(point.seconds_measuring for point in report.points)
    return (
        f"Making weights and putting them in took {fmt.duration(making)}, scoring and statistics "
        f"{fmt.duration(measuring)}."
    )


def _row(report: SweepReport, point: SweepPoint, scale: LogScale, *, shares: bool, kernels: bool) -> tuple[Cell, ...]:
    last = last_mild(report, point.value)
    name = Cell(visible(told(point.value)), "last mild" if last else "", strong=last)
    share = [Cell(fmt.number(point.s))] if shares else []
    if point.divergence is None or point.perplexity is None:
        why = point.refused or f"{fmt.count(point.nonfinite_positions)} positions not finite"
        return (name, *share, Cell(point.severity or "not run", visible(why)), *[Cell(fmt.NONE)] * (7 + kernels))
    kl, ratio = point.divergence.kl, point.perplexity.ratio
    shown, shown_ratio = fmt.estimate(kl.mean, kl.ci), fmt.estimate(ratio.mean, ratio.ci)
    top1 = point.top1_agreement
    agreement = fmt.estimate(top1.mean, top1.ci, percent=True) if top1 is not None else fmt.Estimate(fmt.NONE, None)
    shown_class = severity(point)
    unsure = " or ".join(point.classes) if len(point.classes) > 1 and shown_class != UNJUDGED else ""
    return (
        name,
        *share,
        Cell(shown_class, unsure),
        Cell(shown.value, shown.interval or "no interval", strong=True),
        Cell(
            chart=interval_strip(
                f"{setting(report, point.value)}: {shown} nats", kl.mean, kl.ci, scale, [Guide(scale.low, "base")]
            )
        ),
        Cell(fmt.number(kl.p99)),
        Cell(fmt.number(point.perplexity.candidate, 4)),
        Cell(shown_ratio.value, shown_ratio.interval or ""),
        Cell(agreement.value, agreement.interval or ""),
        *([_kernel(point)] if kernels else []),
        Cell(
            fmt.NONE if point.bytes is None else fmt.size(point.bytes),
            "" if point.bits_per_weight is None else f"{fmt.number(point.bits_per_weight, 3)} bits per weight",
        ),
    )


def _kernel(point: SweepPoint) -> Cell:
    if point.kernel_term is None:
        return Cell(fmt.NONE, "not known" if point.no_kernel_term else "")
    term = point.kernel_term.kl
    shown = fmt.estimate(term.mean, term.ci)
    return Cell(shown.value, shown.interval or "no interval")
