"""The two charts of a sweep: KL and perplexity against the setting."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from app.contracts.report import SEVERITIES
from app.kinds.sweep.report import SweepPoint, SweepReport, Threshold
from app.kinds.sweep.words import in_order, setting
from app.models.knobs import told
from app.reports import format as fmt
from app.reports.charts.curve import CurveDot, Knee, Level, curve_chart
from app.reports.untrusted import visible

_FIT_POINTS = 121


def kl_chart(report: SweepReport) -> Markup | None:
    """KL with its intervals among the classes; None if no point has any."""
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
        y_title="KL(p‖q), nats per token",
        x_title=_x_title(report),
        fit=_line_of(report.threshold_kl, dots),
        knee=_knee_mark(report.threshold_kl),
        levels=[Level(limits[name], name) for name in SEVERITIES[1:]],
    )


def perplexity_chart(report: SweepReport) -> Markup | None:
    """Perplexity over that of the unmodified model; None if no point has a finite one."""
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
        if lossless := report.near_lossless:
            levels.append(Level(report.reference_perplexity * math.exp(lossless.limit), "near-lossless"))
    return curve_chart(
        dots,
        title="Perplexity against the setting",
        y_title="Perplexity of q",
        x_title=_x_title(report),
        fit=_line_of(report.threshold, dots),
        knee=_knee_mark(report.threshold),
        levels=levels,
    )


def published_value(params: dict[str, float], s: float) -> float | None:
    """y of the published form at s; None beyond what a float holds."""
    s0 = params["s0"]
    log_y = math.log(params["a"]) + params["b"] * math.log(min(s, s0)) if params["a"] > 0 else -math.inf
    beyond = max(0.0, s - s0)
    log_y += params["k1"] * beyond + params["k2"] * beyond**2
    return math.exp(log_y) if -600 < log_y < 600 else None


def _place(report: SweepReport, point: SweepPoint, number: int) -> float:
    """Along the charts' axis, rising with strength: s where it is known, else value or order."""
    if point.s is not None:
        return point.s
    if report.knob.axis == "value" and isinstance(point.value, int | float):
        falling = float(str(report.points[0].value)) > float(str(report.points[-1].value))
        return -float(point.value) if falling else float(point.value)
    return float(number)


def _x_title(report: SweepReport) -> str:
    """Short enough for a telephone: the meaning of s is below the table of points."""
    share = report.knob.share
    return visible(
        f"{report.knob.field}, {in_order(report)}" if share is None else f"{report.knob.field}; {share.split(',')[0]}"
    )


def _knee_mark(threshold: Threshold | None) -> Knee | None:
    if threshold is None or not fit_drawn(threshold):
        return None
    sure = threshold.answer == "transition"
    if sure:
        label = f"turns at s = {threshold.s0:.3g} [{threshold.ci[0]:.3g}, {threshold.ci[1]:.3g}]"
    else:
        label = f"not identifiable, best fit {threshold.s0:.3g}"
    return Knee(threshold.s0, threshold.ci, label, sure)


def fit_drawn(threshold: Threshold | None) -> bool:
    """Whether the published form is drawn: not where it was not fitted, or does without a knee."""
    return threshold is not None and threshold.answer != "no transition in range"


def _line_of(threshold: Threshold | None, dots: Sequence[CurveDot]) -> list[tuple[float, float]]:
    """The published form over the measured range; empty if it is not drawn."""
    if threshold is None or not fit_drawn(threshold):
        return []
    low, high = min(dot.x for dot in dots), max(dot.x for dot in dots)
    line = []
    for index in range(_FIT_POINTS):
        s = low + (high - low) * index / (_FIT_POINTS - 1)
        value = published_value(threshold.params, s) if s > 0 else None
        if value is not None:
            line.append((s, value))
    return line
