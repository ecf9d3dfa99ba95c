"""Flip rate against KL as SVG: what earlier runs predict, those runs, and this job's tasks.

As in `marks` every horizontal place is in per cent and every height in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from markupsafe import Markup

from app.reports import format as fmt
from app.reports.charts.marks import Interval, _grid, _line_across, _pct, _svg, _tag, _ticks, _upright
from app.reports.scales import LinearScale, LogScale

_TOP: Final = 26
_PLOT: Final = 220
_LEFT, _RIGHT = 9.0, 97.0
# Characters of a name that fit beside a point on a telephone.
_NAME: Final = 20


@dataclass(frozen=True)
class FlipDot:
    """A run: KL in nats, flip rate as a share. `own` is one of the job's own tasks, drawn large and named."""

    label: str
    kl: float
    rate: float
    ci: Interval | None
    own: bool


@dataclass(frozen=True)
class Band:
    """The prediction at rising KL: median and 95 % limits of the flip rate, shares."""

    kl: Sequence[float]
    rate: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    what: str


def flips_chart(dots: Sequence[FlipDot], band: Band | None) -> Markup | None:
    """The chart; None if there is neither a run nor a prediction at a KL above zero."""
    dots = [dot for dot in dots if dot.kl > 0]
    places = [dot.kl for dot in dots] + list(band.kl if band else ())
    if not places:
        return None
    across = LogScale.around(*places, margin=1.08)
    highest = max([0.05, *(dot.ci[1] if dot.ci else dot.rate for dot in dots), *(band.high if band else ())])
    up = LinearScale(0.0, min(1.0, 1.06 * highest))
    base = _TOP + _PLOT

    def x_of(kl: float) -> float:
        return _LEFT + across.at(kl) * (_RIGHT - _LEFT) / 100

    def y_of(rate: float) -> float:
        return base - _PLOT * up.at(rate) / 100

    shapes: list[Markup] = [_tag("text", "items that flip", x=0, y=12, class_="t")]
    if band is not None:
        shapes += _drawn(band, x_of, y_of)
    shapes += _grid(up, 14, y_of, lambda tick: f"{100 * tick:g} %")
    for dot in sorted(dots, key=lambda dot: dot.own):
        x, y = x_of(dot.kl), y_of(dot.rate)
        title = f"{dot.label}: {fmt.number(100 * dot.rate)} % flip at {fmt.number(dot.kl)} nats"
        if dot.own and dot.ci:
            shapes.append(_upright(x, dot.ci, y_of))
        shapes.append(
            _tag(
                "circle",
                _tag("title", title),
                cx=_pct(x),
                cy=y,
                r=6 if dot.own else 3.5,
                class_="estimate" if dot.own else "ring",
            )
        )
    shapes += _names([dot for dot in dots if dot.own], x_of, y_of)
    shapes.append(_line_across(base, "base"))
    shapes += _ticks(across, 12, base, x_of)
    shapes.append(_tag("text", "KL over the text, nats per token", x="100%", y=base + 34, class_="t end"))
    told = "; ".join(
        f"{dot.label}: {fmt.number(100 * dot.rate)} % at {fmt.number(dot.kl)} nats" for dot in dots if dot.own
    )
    what = f" Band: {band.what}." if band else ""
    return _svg(
        base + 40,
        title="Flip rate against KL",
        desc=f"KL on a logarithmic axis. {told}.{what} {sum(not dot.own for dot in dots)} earlier runs.",
        body=shapes,
        class_="chart",
    )


def _drawn(band: Band, x_of: Callable[[float], float], y_of: Callable[[float], float]) -> list[Markup]:
    """The band in upright strips (places are in per cent, so that it cannot be one shape) and its median."""
    shapes = []
    points = list(zip(band.kl, band.rate, band.low, band.high, strict=True))
    for (kl, rate, low, high), (next_kl, next_rate, next_low, next_high) in pairwise(points):
        left, right = x_of(kl), x_of(next_kl)
        top, bottom = y_of((high + next_high) / 2), y_of((low + next_low) / 2)
        shapes.append(
            _tag(
                "rect",
                x=_pct(left),
                y=top,
                width=_pct(right - left),
                height=max(1.0, bottom - top),
                class_="bar",
                opacity=0.35,
            )
        )
        shapes.append(_tag("line", x1=_pct(left), x2=_pct(right), y1=y_of(rate), y2=y_of(next_rate), class_="mean"))
    return shapes


def _names(dots: Sequence[FlipDot], x_of: Callable[[float], float], y_of: Callable[[float], float]) -> list[Markup]:
    """Labels of the job's own tasks, beside their points, none over another: they share one KL, so they stand in a
    column in the order of their rates."""
    shapes = []
    lowest = _TOP + _PLOT + 0.0
    for dot in sorted(dots, key=lambda dot: dot.rate):
        x = x_of(dot.kl)
        y = min(y_of(dot.rate) + 4, lowest - 15)
        lowest = y
        left = x > 70
        shapes.append(
            _tag(
                "text",
                dot.label if len(dot.label) <= _NAME else f"{dot.label[:_NAME]}…",
                x=_pct(x),
                dx=-11 if left else 11,
                y=y,
                class_="t halo strong" + (" end" if left else ""),
            )
        )
    return shapes
