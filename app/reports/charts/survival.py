"""Survival of a shared text as SVG: the share of prompts whose two texts are still the same, token by token.

As in `marks` every horizontal place is in per cent and every height in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from app.reports import format as fmt
from app.reports.charts.marks import _anchor, _line, _line_across, _pct, _svg, _tag
from app.reports.scales import LinearScale, ticks

_TOP: Final = 34
_PLOT: Final = 190
_STRIP: Final = 44
_LABEL: Final = 15
# The chart's labels stand left of this place, clear of the bands.
_LEFT: Final = 8.0
Place = Callable[[float], float]


@dataclass(frozen=True)
class Curve:
    """Points (tokens, share, low, high) from 0 tokens on, of one candidate. `series` is its colour, 0 to 3."""

    name: str
    points: tuple[tuple[int, float, float, float], ...]
    series: int


@dataclass(frozen=True)
class _Run:
    """From `first` up to `last` tokens nothing changes."""

    first: int
    last: int
    share: float
    low: float
    high: float


def survival_chart(title: str, curves: Sequence[Curve], length: int) -> Markup:
    """Step curves with their intervals as bands, and a mark where half of the prompts have parted."""
    across = LinearScale(0.0, float(max(1, length)))
    base = _TOP + _PLOT

    def x_of(tokens: float) -> float:
        return _LEFT + across.at(tokens) * (100 - _LEFT) / 100

    def y_of(share: float) -> float:
        return base - _PLOT * share

    shapes: list[Markup] = [_tag("text", "% of prompts with the same text so far", x=0, y=10, class_="t")]
    for share in (0.25, 0.5, 0.75, 1.0):
        shapes.append(_line_across(y_of(share), "grid"))
        shapes.append(_tag("text", f"{100 * share:g}", x=0, y=y_of(share) + 4, class_="t"))
    for curve in curves:
        shapes += _band(curve, x_of, y_of)
    for curve in curves:
        shapes += _steps(curve, x_of, y_of)
    shapes.append(_line_across(base, "base"))
    for tick in ticks(across, 12):
        at = x_of(tick)
        shapes.append(_line(at, base, base + 4, "tick"))
        shapes.append(_tag("text", fmt.short(tick), x=_pct(at), y=base + 16, class_="t " + _anchor(at)))
    shapes.append(_tag("text", "generated tokens", x="100%", y=base + 32, class_="t end"))
    for row, curve in enumerate(curves if len(curves) > 1 else ()):
        y = base + 38 + _LABEL * (row + 1)
        shapes.append(_tag("line", x1="0%", x2="7%", y1=y - 4, y2=y - 4, class_=f"series s{curve.series}"))
        shapes.append(_tag("text", curve.name, x="8.5%", y=y, class_="t"))
    told = "; ".join(_told(curve, length) for curve in curves)
    height = base + 40 + (_LABEL * len(curves) + 4 if len(curves) > 1 else 0)
    return _svg(height, title=title, desc=told, body=shapes, class_="chart")


def survival_strip(title: str, curve: Curve, length: int) -> Markup:
    """One curve with its band in a row of a table; the dotted line is one half."""
    across = LinearScale(0.0, float(max(1, length)))

    def y_of(share: float) -> float:
        return 3 + (_STRIP - 6) * (1 - share)

    shapes = [_line_across(y_of(0.5), "grid"), _line_across(y_of(0.0), "grid")]
    shapes += _band(curve, across.at, y_of)
    shapes += _steps(curve, across.at, y_of)
    return _svg(_STRIP, title=title, body=shapes, class_="strip")


def _runs(curve: Curve) -> list[_Run]:
    """Points of equal values joined."""
    runs: list[_Run] = []
    for (tokens, share, low, high), following in zip(
        curve.points, [*(point[0] for point in curve.points[1:]), None], strict=True
    ):
        last = tokens if following is None else following
        if runs and (runs[-1].share, runs[-1].low, runs[-1].high) == (share, low, high):
            runs[-1] = _Run(runs[-1].first, last, share, low, high)
        else:
            runs.append(_Run(tokens, last, share, low, high))
    return runs


def _band(curve: Curve, x_of: Place, y_of: Place) -> list[Markup]:
    shapes = []
    for run in _runs(curve):
        left, right = x_of(run.first), x_of(run.last)
        high, low = y_of(run.high), y_of(run.low)
        if right > left and low > high:
            shapes.append(
                _tag(
                    "rect",
                    x=_pct(left),
                    y=high,
                    width=_pct(right - left),
                    height=low - high,
                    class_=f"fan s{curve.series}",
                )
            )
    return shapes


def _steps(curve: Curve, x_of: Place, y_of: Place) -> list[Markup]:
    shapes = []
    before: float | None = None
    for run in _runs(curve):
        left, right, y = x_of(run.first), x_of(run.last), y_of(run.share)
        style = f"series s{curve.series}"
        if before is not None and before != y:
            shapes.append(_tag("line", x1=_pct(left), x2=_pct(left), y1=before, y2=y, class_=style))
        if right > left:
            shapes.append(_tag("line", x1=_pct(left), x2=_pct(right), y1=y, y2=y, class_=style))
        before = y
    return shapes


def _told(curve: Curve, length: int) -> str:
    half = next((tokens for tokens, share, *_ in curve.points if share <= 0.5), None)
    end = curve.points[-1]
    where = f"half have parted after {fmt.counted(half, 'token')}" if half is not None else "fewer than half part"
    return f"{curve.name}: {where}; {fmt.percent(end[1])} % are the same after {end[0]} of {length} tokens"
