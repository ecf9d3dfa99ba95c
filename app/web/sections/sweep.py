"""What a sweep found: how far the knob may be turned, where the curve turns, and every point."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from app.contracts.report import SEVERITIES
from app.contracts.sweep_report import Limit, SweepPoint, SweepReport, Threshold
from app.models.knobs import told
from app.web import format as fmt
from app.web.charts import Guide, axis, interval_strip
from app.web.charts_curve import CurveDot, Knee, Level, curve_chart
from app.web.scales import LogScale
from app.web.sections.numbers import Figure
from app.web.tables import Cell, Column, Table
from app.web.untrusted import visible

_FIT_POINTS = 121
FORMS = {
    "power_law_then_exponential": "power law, then exponential (published)",
    "power_law_then_exponential_over_dense": "the same over the unmodified model’s value",
    "power_law": "power law",
    "exponential": "exponential",
    "logistic": "logistic",
    "broken_line": "broken line",
}
_ANSWERS = {
    "transition": "a transition",
    "no transition in range": "no transition in range",
    "not identifiable": "not identifiable",
}


@dataclass(frozen=True)
class FitView:
    """One fitted threshold: what it says, its numbers and its rivals."""

    name: str
    answer: str
    notes: tuple[str, ...]
    numbers: Table
    forms: Table


@dataclass(frozen=True)
class Sweep:
    """Texts, charts and tables of the page."""

    heading: str
    sentence: str
    figures: tuple[Figure, ...]
    kl_chart: Markup | None
    perplexity_chart: Markup | None
    points: Table
    points_note: str
    fits: tuple[FitView, ...]
    no_threshold: str
    limits: Table
    limits_note: str
    effort: Table
    effort_note: str


def sweep(report: SweepReport) -> Sweep:
    """The view of a report."""
    known = [threshold for threshold in (report.threshold, report.threshold_kl) if threshold is not None]
    return Sweep(
        heading=heading(report),
        sentence=visible(report.verdict),
        figures=_figures(report),
        kl_chart=_kl_chart(report),
        perplexity_chart=_perplexity_chart(report),
        points=_points(report),
        points_note=_points_note(report),
        fits=tuple(_fit(threshold) for threshold in known),
        no_threshold=visible(report.no_threshold),
        limits=_limits(report),
        limits_note=_limits_note(report),
        effort=_effort(report),
        effort_note=visible(report.choice.note),
    )


def heading(report: SweepReport) -> str:
    """How far one may go, in a few words."""
    limit = report.largest_mild
    if limit is None or limit.largest is None:
        return f"No value of {visible(report.knob.field)} stays mild"
    return f"Mild up to {setting(report, limit.largest)}"


def setting(report: SweepReport, value: Any) -> str:
    """`sparsity 0.4`."""
    return visible(f"{report.knob.field} {told(value)}")


def where(report: SweepReport, at: float | None) -> str:
    """A place between settings, in the unit of the report's axis."""
    if at is None:
        return fmt.NONE
    names = {"value": report.knob.field, "s": "s", "order": "setting"}
    return visible(f"{names[report.knob.axis]} {at:.3g}")


def ends(limit: Limit) -> str:
    """The interval of a limit, rising; an open end lies outside what was measured."""
    if limit.ci is None:
        return "no interval"
    low, high = limit.ci
    if low is not None and high is not None and low > high:
        low, high = high, low
    shown = [("beyond" if end is None else f"{end:.3g}") for end in (low, high)]
    return f"[{shown[0]}, {shown[1]}]"


def strongest(report: SweepReport) -> str:
    """What the verdict's section speaks of."""
    last = next((point for point in reversed(report.points) if not point.refused), report.points[-1])
    excess = fmt.estimate(report.decision.excess_kl.mean, report.decision.excess_kl.ci)
    return f"At the strongest setting, {setting(report, last.value)}, the candidate loses {excess} nats a token."


# --- figures


def _figures(report: SweepReport) -> tuple[Figure, ...]:
    return (
        _limit_figure("Stays mild up to", report, report.largest_mild, "excess KL, by its upper limit"),
        _limit_figure("Near-lossless up to", report, report.near_lossless, "ln perplexity rises by less than 0.218"),
        _knee_figure("Perplexity turns at", report.threshold),
        _knee_figure("KL turns at", report.threshold_kl),
    )


def _limit_figure(label: str, report: SweepReport, limit: Limit | None, note: str) -> Figure:
    value = fmt.NONE if limit is None or limit.largest is None else visible(told(limit.largest))
    crossing = ""
    if limit is not None and limit.at is not None:
        crossing = f"mean passes at {limit.at:.3g} {ends(limit)}"
    elif limit is not None and limit.largest is not None:
        crossing = "not passed in the measured range"
    return Figure(label, value, visible(report.knob.field), crossing, note)


def _knee_figure(label: str, threshold: Threshold | None) -> Figure:
    if threshold is None:
        return Figure(label, fmt.NONE, "s", "", "not fitted")
    if threshold.answer == "no transition in range":
        return Figure(label, fmt.NONE, "s, the share removed", "", f"{_ANSWERS[threshold.answer]}")
    knee = fmt.estimate(threshold.s0, threshold.ci)
    known = threshold.answer == "transition"
    return Figure(
        label,
        knee.value if known else fmt.NONE,
        "s, the share removed",
        knee.interval or "" if known else f"not identifiable; best fit {knee}",
        f"{FORMS.get(threshold.form, threshold.form)} fits best",
    )


# --- charts


def _place(report: SweepReport, point: SweepPoint, number: int) -> float:
    """Along the charts' axis, rising with strength: s where it is known, else value or order."""
    if point.s is not None:
        return point.s
    if report.knob.axis == "value" and isinstance(point.value, int | float):
        falling = float(str(report.points[0].value)) > float(str(report.points[-1].value))
        return -float(point.value) if falling else float(point.value)
    return float(number)


def _x_title(report: SweepReport) -> str:
    share = "" if report.knob.share is None else f"; {report.knob.share}"
    return visible(f"{report.knob.field}, weakest setting first{share}")


def _kl_chart(report: SweepReport) -> Markup | None:
    dots = []
    for number, point in enumerate(report.points, 1):
        if point.divergence is None or not point.divergence.kl.mean or point.divergence.kl.mean <= 0:
            continue
        kl = point.divergence.kl
        title = f"{setting(report, point.value)}: KL {fmt.estimate(kl.mean, kl.ci)} nats"
        dots.append(
            CurveDot(
                _place(report, point, number),
                visible(told(point.value)),
                title,
                kl.mean or 0.0,
                kl.ci,
                bool(point.nonfinite_positions),
            )
        )
    if not dots:
        return None
    limits = report.decision.thresholds.model_dump()
    return curve_chart(
        dots,
        title="KL against the setting",
        y_title="KL(p‖q), nats a token",
        x_title=_x_title(report),
        fit=_line_of(report.threshold_kl, dots),
        knee=_knee_mark(report.threshold_kl),
        levels=[Level(limits[name], name) for name in SEVERITIES[1:]],
    )


def _perplexity_chart(report: SweepReport) -> Markup | None:
    dots = []
    for number, point in enumerate(report.points, 1):
        perplexity = point.perplexity
        if perplexity is None or not perplexity.candidate:
            continue
        ratio = fmt.estimate(perplexity.ratio.mean, perplexity.ratio.ci)
        base = report.reference_perplexity
        ci = None
        if perplexity.ratio.ci is not None and base is not None:
            ci = (perplexity.ratio.ci[0] * base, perplexity.ratio.ci[1] * base)
        title = f"{setting(report, point.value)}: perplexity {fmt.number(perplexity.candidate, 4)}, {ratio} × p’s"
        dots.append(
            CurveDot(
                _place(report, point, number),
                visible(told(point.value)),
                title,
                perplexity.candidate,
                ci,
                bool(point.nonfinite_positions),
            )
        )
    if not dots:
        return None
    levels = []
    if report.reference_perplexity:
        levels.append(Level(report.reference_perplexity, "unmodified"))
        if report.near_lossless is not None:
            levels.append(Level(report.reference_perplexity * math.exp(report.near_lossless.limit), "near-lossless"))
    return curve_chart(
        dots,
        title="Perplexity against the setting",
        y_title="Perplexity of q",
        x_title=_x_title(report),
        fit=_line_of(report.threshold, dots),
        knee=_knee_mark(report.threshold),
        levels=levels,
    )


def _knee_mark(threshold: Threshold | None) -> Knee | None:
    if threshold is None or threshold.answer == "no transition in range":
        return None
    sure = threshold.answer == "transition"
    label = f"turns at s = {threshold.s0:.3g} [{threshold.ci[0]:.3g}, {threshold.ci[1]:.3g}]"
    return Knee(threshold.s0, threshold.ci, label if sure else f"{label}, not identifiable", sure)


def published_value(params: dict[str, float], s: float) -> float | None:
    """y of the published form at s; None beyond what a float holds."""
    s0 = params["s0"]
    log_y = math.log(params["a"]) + params["b"] * math.log(min(s, s0)) if params["a"] > 0 else -math.inf
    beyond = max(0.0, s - s0)
    log_y += params["k1"] * beyond + params["k2"] * beyond**2
    return math.exp(log_y) if -600 < log_y < 600 else None


def _line_of(threshold: Threshold | None, dots: Sequence[CurveDot]) -> list[tuple[float, float]]:
    """The published form over the measured range; empty where it was not fitted, or does without a knee."""
    if threshold is None or threshold.answer == "no transition in range":
        return []
    low, high = min(dot.x for dot in dots), max(dot.x for dot in dots)
    line = []
    for index in range(_FIT_POINTS):
        s = low + (high - low) * index / (_FIT_POINTS - 1)
        value = published_value(threshold.params, s) if s > 0 else None
        if value is not None:
            line.append((s, value))
    return line


# --- tables


def _points(report: SweepReport) -> Table:
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
    columns += [Column("s")] if shares else []
    columns += [
        Column("Severity", "text"),
        Column("KL, nats"),
        Column("With 95 % interval", "chart"),
        Column("p99 of KL"),
        Column("Perplexity"),
        Column("Ratio to p’s"),
        Column("Top-1 agreement, %"),
        Column("Size"),
    ]
    rows = [_row(report, point, scale, shares=shares) for point in report.points]
    return Table(
        caption="Every measured setting, weakest first",
        columns=tuple(columns),
        rows=tuple(rows),
        axis=axis(scale, "KL in nats, logarithmic axis"),
    )


def _row(report: SweepReport, point: SweepPoint, scale: LogScale, *, shares: bool) -> tuple[Cell, ...]:
    limit = report.largest_mild
    last_mild = limit is not None and limit.largest is not None and limit.largest == point.value
    name = Cell(visible(told(point.value)), "last mild" if last_mild else "", strong=last_mild)
    share = [Cell(fmt.number(point.s))] if shares else []
    if point.divergence is None or point.perplexity is None:
        why = point.refused or f"{fmt.count(point.nonfinite_positions)} positions not finite"
        return (name, *share, Cell(point.severity or "not run", visible(why)), *[Cell(fmt.NONE)] * 7)
    kl, ratio = point.divergence.kl, point.perplexity.ratio
    shown, shown_ratio = fmt.estimate(kl.mean, kl.ci), fmt.estimate(ratio.mean, ratio.ci)
    top1 = point.top1_agreement
    agreement = fmt.estimate(top1.mean, top1.ci, percent=True) if top1 is not None else fmt.Estimate(fmt.NONE, None)
    unsure = " or ".join(point.classes) if len(point.classes) > 1 else ""
    return (
        name,
        *share,
        Cell(point.severity or fmt.NONE, unsure),
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
        Cell(
            fmt.NONE if point.bytes is None else fmt.size(point.bytes),
            "" if point.bits_per_weight is None else f"{fmt.number(point.bits_per_weight, 3)} bits a weight",
        ),
    )


def _points_note(report: SweepReport) -> str:
    return visible(
        "KL is KL(reference‖candidate) over all scored tokens of the same text at every setting; ratios are paired by "
        f"position. The unmodified model’s perplexity is {fmt.number(report.reference_perplexity, 4)}."
        + (f" Here {report.knob.share}." if report.knob.share else "")
    )


def _fit(threshold: Threshold) -> FitView:
    of = "perplexity" if threshold.of == "perplexity" else "KL"
    slopes, params = threshold.slopes, threshold.params
    rows = [
        ("s0", fmt.estimate(threshold.s0, threshold.ci), "the share removed where the curve turns"),
        ("Slope below", fmt.Estimate(fmt.number(slopes.below), None), f"d ln {of} / ds of the form just below s0"),
        ("Slope above", fmt.Estimate(fmt.number(slopes.above), None), "just above"),
        (
            "Measured slope below",
            fmt.Estimate(fmt.number(slopes.measured_below), None),
            "least squares, points up to s0",
        ),
        ("Measured slope above", fmt.Estimate(fmt.number(slopes.measured_above), None), "points beyond"),
        ("p of no transition", fmt.Estimate(fmt.number(threshold.transition_test.p, 2), None), _level(threshold)),
        ("p of the form’s fit", fmt.Estimate(fmt.number(threshold.lack_of_fit, 2), None), "small: it does not fit"),
    ]
    rows += [
        (name, fmt.Estimate(fmt.number(value), None), _bound(threshold, name))
        for name, value in params.items()
        if name != "s0"
    ]
    numbers = Table(
        caption=f"The published form, fitted to {threshold.points} points by least squares on ln {of}",
        columns=(Column("", "name"), Column("Value"), Column("What it is", "text")),
        rows=tuple((Cell(name), Cell(value.value, value.interval or ""), Cell(note)) for name, value, note in rows),
    )
    return FitView(
        name=of,
        answer=_answer(threshold, of),
        notes=tuple(visible(note) for note in (*threshold.reasons, *threshold.warnings)),
        numbers=numbers,
        forms=_forms(threshold, of),
    )


def _answer(threshold: Threshold, of: str) -> str:
    how = "documents resampled jointly at all points" if threshold.interval.resampled == "documents" else "residuals"
    if threshold.answer == "transition":
        value = ""
        if threshold.value is not None and abs(threshold.value - threshold.s0) > 1e-9:
            value = f", where the knob stands at {threshold.value:.3g}"
        return f"The {of} turns at s0 = {fmt.estimate(threshold.s0, threshold.ci)} (95 %, {how}){value}."
    if threshold.answer == "no transition in range":
        return f"The {of} has no transition in the measured range."
    return f"Not identifiable: the {of} turns, and these points do not say where."


def _level(threshold: Threshold) -> str:
    return f"a transition is claimed at {threshold.transition_test.level:g} and below"


def _bound(threshold: Threshold, name: str) -> str:
    low, high = threshold.bounds.get(name, (None, None))
    if low is None and high is None:
        return "no bounds"
    shown = [fmt.short(end) if end is not None else "open" for end in (low, high)]
    rests = ", rests on one" if name in threshold.at_bounds else ""
    return f"bounds {shown[0]} to {shown[1]}{rests}"


def _forms(threshold: Threshold, of: str) -> Table:
    rows = [
        (
            Cell(FORMS["power_law_then_exponential"], strong=threshold.form == "power_law_then_exponential"),
            Cell(fmt.number(threshold.log_sse)),
            Cell(fmt.number(threshold.aicc, 4)),
            Cell("0"),
            Cell(fmt.number(threshold.left_out_error)),
            Cell(fmt.number(threshold.s0)),
        )
    ]
    rows += [
        (
            Cell(FORMS.get(rival.form, rival.form), strong=rival.form == threshold.form),
            Cell(fmt.number(rival.log_sse)),
            Cell(fmt.number(rival.aicc, 4)),
            Cell(fmt.signed(rival.delta_aicc)),
            Cell(fmt.number(rival.left_out_error)),
            Cell(fmt.number(rival.transition_at)),
        )
        for rival in threshold.rivals
    ]
    return Table(
        caption=f"Forms for ln {of}; the bold one describes it best",
        columns=(
            Column("Form", "text"),
            Column("Sum of squares"),
            Column("AICc"),
            Column("Difference"),
            Column("Error at left-out points"),
            Column("Turns at s"),
        ),
        rows=tuple(rows),
    )


def _limits(report: SweepReport) -> Table:
    rows = []
    for name, limit, unit in (
        ("Stays mild", report.largest_mild, "nats of excess KL"),
        ("Near-lossless", report.near_lossless, "of ln perplexity"),
    ):
        if limit is None:
            continue
        rows.append(
            (
                Cell(name),
                Cell(fmt.NONE if limit.largest is None else visible(told(limit.largest)), strong=True),
                Cell(where(report, limit.at), ends(limit) if limit.at is not None else ""),
                Cell(f"{fmt.number(limit.limit)} {unit}"),
                Cell(visible(limit.rule)),
            )
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
        rows=tuple(rows),
    )


def _limits_note(report: SweepReport) -> str:
    note = (
        "The largest setting is the strongest measured one that stays within the limit together with every weaker one. "
        "Where the limit is passed is interpolated between measured settings; an end of the interval that is beyond "
        "lies outside them."
    )
    slopes = report.slopes
    if slopes is not None:
        unit = "s" if report.knob.axis == "s" else report.knob.field
        note += (
            f" Around the place where mild ends ({slopes.at:.3g}) ln perplexity changes by {fmt.number(slopes.below)} "
            f"per unit of {unit} on the weaker side and {fmt.number(slopes.above)} on the stronger."
        )
    return visible(note)


def _effort(report: SweepReport) -> Table:
    making = sum(point.seconds_making for point in report.points)
    measuring = sum(point.seconds_measuring for point in report.points)
    rows = [
        (Cell("All"), Cell(str(len(report.points))), Cell(fmt.duration(making)), Cell(fmt.duration(measuring))),
    ]
    for share in report.shared if len(report.shared) > 1 else ():
        mine = [point for point in report.points if point.by == share.by]
        rows.append(
            (
                Cell(visible(share.by)),
                Cell(str(share.points)),
                Cell(fmt.duration(sum(point.seconds_making for point in mine))),
                Cell(fmt.duration(sum(point.seconds_measuring for point in mine))),
            )
        )
    return Table(
        caption="What it took, by process",
        columns=(
            Column("Process", "name"),
            Column("Points"),
            Column("Making weights, putting them in"),
            Column("Scoring and statistics"),
        ),
        rows=tuple(rows),
    )
