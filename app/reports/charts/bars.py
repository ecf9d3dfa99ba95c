"""Ranked bars with intervals as SVG: the worst on top, each with its name and number.

As in `marks` every horizontal place is in per cent and every height in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from app.reports import format as fmt
from app.reports.charts.marks import Interval, _line, _pct, _svg, _tag, _ticks, _whisker
from app.reports.scales import LinearScale, ticks

_ROW: Final = 40
_LABEL: Final = 13
_BAR: Final = 14
_COLUMN: Final = 118
_HEAD: Final = 32  # above columns, so that the unit is clear of the topmost tick's number


@dataclass(frozen=True)
class Bar:
    """One row. `label` is above the bar at the left, `text` at the right; `kind` is a class of the style sheet."""

    label: str
    text: str
    value: float
    ci: Interval | None
    kind: str = "bar"


def ranked_bars(bars: Sequence[Bar], *, title: str, unit: str) -> Markup:
    """Bars from zero on one linear axis, in the order in which they are given; negative values go to the left."""
    known = [value for bar in bars for value in (bar.value, *(bar.ci or ()))]
    low, high = min(0.0, *known), max(0.0, *known)
    spread = (high - low) or 1.0
    scale = LinearScale(low - (0.02 * spread if low < 0 else 0.0), high + 0.02 * spread)
    zero = scale.at(0.0)
    bottom = _ROW * len(bars) + 4
    shapes: list[Markup] = [_line(scale.at(tick), 0, bottom, "grid") for tick in ticks(scale, 12)]
    for row, bar in enumerate(bars):
        top = row * _ROW
        middle = top + _LABEL + 4 + _BAR / 2
        ends = sorted((zero, scale.at(bar.value)))
        said = f"{bar.label}: {bar.text}"
        shapes.append(
            _tag(
                "rect",
                _tag("title", said),
                x=_pct(ends[0]),
                y=top + _LABEL + 4,
                width=_pct(max(0.15, ends[1] - ends[0])),
                height=_BAR,
                class_=bar.kind,
            )
        )
        if bar.ci:
            shapes += _whisker(scale, bar.ci, middle, cap=4)
        shapes.append(_tag("text", bar.label, x=0, y=top + _LABEL, class_="t halo strong"))
        shapes.append(_tag("text", bar.text, x="100%", y=top + _LABEL, class_="t halo end"))
    shapes.append(_line(zero, 0, bottom, "base"))
    shapes += _ticks(scale, 17, bottom)
    shapes.append(_tag("text", unit, x="100%", y=bottom + 33, class_="t end"))
    told = "; ".join(f"{bar.label}: {bar.text}" for bar in bars)
    return _svg(bottom + 38, title=title, desc=told, body=shapes, class_="chart")


def columns_chart(bars: Sequence[Bar], *, title: str, unit: str, along: str) -> Markup:
    """Upright bars from zero beside each other, with intervals: one a layer, in the model's order."""
    high = max([0.0, *(value for bar in bars for value in (bar.value, *(bar.ci or ())))]) or 1.0
    scale = LinearScale(0.0, high * 1.06)
    base = _HEAD + _COLUMN
    left, right = 7.0, 99.5
    width = (right - left) / max(1, len(bars))

    def y_of(value: float) -> float:
        return base - _COLUMN * scale.at(value) / 100

    shapes: list[Markup] = [_tag("text", unit, x=0, y=11, class_="t")]
    for tick in ticks(scale, 30):
        shapes.append(_tag("line", x1="0%", x2="100%", y1=y_of(tick), y2=y_of(tick), class_="grid"))
        if tick:
            shapes.append(_tag("text", fmt.short(tick), x=0, y=y_of(tick) - 3, class_="t halo"))
    every = max(1, -(-len(bars) // 11))
    for index, bar in enumerate(bars):
        at = left + (index + 0.5) * width
        y = min(y_of(bar.value), base - 1.0)
        shapes.append(
            _tag(
                "rect",
                _tag("title", f"{bar.label}: {bar.text}"),
                x=_pct(at - 0.38 * width),
                y=y,
                width=_pct(0.76 * width),
                height=max(1.0, base - y),
                class_=bar.kind,
            )
        )
        if bar.ci:
            ends = [y_of(max(0.0, bound)) for bound in bar.ci]
            shapes.append(_tag("line", x1=_pct(at), x2=_pct(at), y1=ends[0], y2=ends[1], class_="whisker"))
        if index % every == 0:
            shapes.append(_tag("text", bar.label, x=_pct(at), y=base + 16, class_="t mid"))
    shapes.append(_tag("line", x1="0%", x2="100%", y1=base, y2=base, class_="base"))
    shapes.append(_tag("text", along, x="100%", y=base + 33, class_="t end"))
    told = "; ".join(f"{bar.label}: {bar.text}" for bar in bars)
    return _svg(base + 38, title=title, desc=told, body=shapes, class_="chart")
