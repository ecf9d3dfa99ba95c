"""Charts of rulings, made by the chart code of the report pages."""

from __future__ import annotations

import math
from collections.abc import Sequence

from app.kinds.sweep.report import SweepReport, Threshold
from app.reports import format as fmt
from app.reports.charts.bars import Bar, ranked_bars
from app.reports.charts.curve import CurveDot, Knee, Level, curve_chart
from examples.paper.finding import Chart, Figure, NoNumberError
from examples.paper.rulings.reports import NEAR_RATIO, ratio_of


def log_bars(name: str, caption: str, figures: Sequence[Figure]) -> Chart:
    """Ratios of perplexities as bars of their logarithms, which have room for 1.01 and for 1,000."""
    bars = [
        Bar(
            figure.what,
            f"{figure} times",
            math.log(figure.value),
            (math.log(figure.low), math.log(figure.high)) if figure.low > 0 else None,
        )
        for figure in figures
    ]
    return Chart(
        name, caption, ranked_bars(bars, title=caption, unit="ln perplexity over the original's, nats per token")
    )


def bars(name: str, caption: str, figures: Sequence[Figure]) -> Chart:
    """Figures of one unit as bars from zero."""
    rows = [Bar(figure.what, f"{figure} {figure.unit}", figure.value, figure.ci) for figure in figures]
    return Chart(name, caption, ranked_bars(rows, title=caption, unit=figures[0].unit))


def sweep_curve(name: str, caption: str, report: SweepReport, x_title: str, *, knee: bool = False) -> Chart:
    """Perplexity over the original's at each setting, the limit of near-lossless, and, if asked, the knee."""
    dots = []
    for index, point in enumerate(report.points):
        label = fmt.short(float(point.value)) if isinstance(point.value, int | float) else str(point.value)
        try:
            figure = ratio_of(point, f"{report.knob.field} {label}")
        except NoNumberError:
            continue
        x = point.s if point.s is not None else float(index)
        dots.append(CurveDot(x, label, f"{figure.what}: {figure} times", figure.value, figure.ci))
    if len(dots) < 2:
        raise NoNumberError(f"{caption}: fewer than two settings have a number")
    markup = curve_chart(
        dots,
        title=caption,
        y_title="perplexity over the original's",
        x_title=x_title,
        knee=_knee(report.threshold) if knee else None,
        levels=[Level(NEAR_RATIO, "near-lossless")],
    )
    return Chart(name, caption, markup)


def _knee(found: Threshold | None) -> Knee | None:
    if found is None:
        return None
    label = f"knee {found.s0:.3f} [{found.ci[0]:.3f}, {found.ci[1]:.3f}]"
    return Knee(found.s0, found.ci, label, sure=found.answer == "transition")
