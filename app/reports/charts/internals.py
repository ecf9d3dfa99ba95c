"""A chart of what happens inside a model: curves over layers with intervals.

As in `marks` every horizontal place is in per cent and every height in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from markupsafe import Markup

from app.reports import format as fmt
from app.reports.charts.marks import Interval, _anchor, _grid, _line, _line_across, _pct, _svg, _tag
from app.reports.scales import LinearScale

_LEFT: Final = 9.0  # where plots begin, so that labels of rows have room
_RIGHT: Final = 100.0
_HEAD: Final = 32  # above curves, so that the unit is clear of the topmost tick's number
_PLOT: Final = 210


@dataclass(frozen=True)
class Series:
    """A curve: `points` (place along the layers, value, interval). `kind`: "main" (filled) or "other" (rings)."""

    name: str
    points: tuple[tuple[float, float, Interval | None], ...]
    kind: str = "main"


def layer_curves(
    series: Sequence[Series], *, title: str, unit: str, last: int, across: str, marks: Sequence[tuple[float, str]] = ()
) -> Markup:
    """Curves over layers 0 to `last` on a linear axis from 0, each value with its interval; `marks` are places that a
    dashed line names."""
    values = [value for one in series for _, mean, ci in one.points for value in (mean, *(ci or ()))]
    up = LinearScale(min([0.0, *values]), max([*values, 0.0]) * 1.06 or 1.0)
    place = LinearScale(-0.5, last + 0.5)
    rows = _HEAD + 16 * (1 if marks else 0)
    base = rows + _PLOT

    def x_of(layer: float) -> float:
        return _LEFT + place.at(layer) * (_RIGHT - _LEFT) / 100

    def y_of(value: float) -> float:
        return base - _PLOT * up.at(value) / 100

    shapes: list[Markup] = [_tag("text", unit, x=0, y=12, class_="t")]
    shapes += _grid(up, 17, y_of, fmt.short)
    for at, label in marks:
        shapes.append(_line(x_of(at), rows - 4, base, "tail"))
        shapes.append(_tag("text", label, x=_pct(x_of(at)), y=rows - 8, class_=f"t halo {_side(x_of(at))}"))
    for one in series:
        main = one.kind == "main"
        for (start, before, _), (end, after, _) in pairwise(one.points):
            ends: dict[str, str | float] = {
                "x1": _pct(x_of(start)),
                "x2": _pct(x_of(end)),
                "y1": y_of(before),
                "y2": y_of(after),
            }
            shapes.append(_tag("line", class_="curve" if main else "curve other", **ends))
        for layer, mean, ci in one.points:
            at = x_of(layer)
            if ci:
                shapes.append(_line(at, y_of(ci[0]), y_of(ci[1]), "whisker" if main else "leader"))
            told = f"{one.name}, {across} {layer:g}: {fmt.estimate(mean, ci)} {unit}"
            shapes.append(
                _tag(
                    "circle",
                    _tag("title", told),
                    cx=_pct(at),
                    cy=y_of(mean),
                    r=3.5,
                    class_="point" if main else "ring",
                )
            )
    shapes.append(_line_across(base, "base"))
    shown = max(1, -(-(last + 1) // 12))
    for layer in range(0, last + 1, shown):
        shapes.append(_line(x_of(layer), base, base + 4, "tick"))
        shapes.append(_tag("text", str(layer), x=_pct(x_of(layer)), y=base + 17, class_="t " + _anchor(x_of(layer))))
    shapes.append(_tag("text", across, x="100%", y=base + 34, class_="t end"))
    at = 0.0
    for one in series:
        kind = "point" if one.kind == "main" else "ring"
        shapes.append(_tag("circle", cx=_pct(_LEFT + at + 1), cy=base + 49, r=3.5, class_=kind))
        shapes.append(_tag("text", one.name, x=_pct(_LEFT + at + 3), y=base + 53, class_="t"))
        at += 45.0
    told = "; ".join(f"{one.name}: {len(one.points)} values" for one in series)
    return _svg(
        base + 60, title=title, desc=f"{title}, over {across}s 0 to {last}. {told}", body=shapes, class_="chart"
    )


def _side(x: float) -> str:
    return "" if x < 15 else "end" if x > 85 else "mid"
