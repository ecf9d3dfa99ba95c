"""Charts of what happens inside a model: a heat map, a curve over layers with intervals, two rows of matched layers.

As in `marks` every horizontal place is in per cent and every height in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from markupsafe import Markup

from app.reports import format as fmt
from app.reports.charts.marks import Interval, _anchor, _line, _line_across, _pct, _svg, _tag
from app.reports.heat import STEPS, HeatScale
from app.reports.scales import LinearScale, ticks

_LEFT: Final = 9.0  # where plots begin, so that labels of rows have room
_RIGHT: Final = 100.0
_TOP: Final = 24
_HEAD: Final = 32  # above curves, so that the unit is clear of the topmost tick's number
_CELL: Final = 15
_PLOT: Final = 210


@dataclass(frozen=True)
class Cells:
    """A heat map: `values[row][column]` (None: no number), with what is at its edges. `outlined`: cells with a
    frame."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    row_name: str
    column_name: str
    unit: str
    outlined: frozenset[tuple[int, int]] = frozenset()


def heat_map(cells: Cells, title: str, *, scale: HeatScale | None = None) -> Markup:
    """Darker is more; steps on a logarithmic scale unless another one is given. The legend is below."""
    known = [value for row in cells.values for value in row if value is not None]
    scale = scale or HeatScale.up_to(max(known, default=0.0))
    width = (_RIGHT - _LEFT) / max(1, len(cells.columns))
    every = max(1, -(-len(cells.rows) // 40))
    height = max(4, _CELL // every)
    shapes: list[Markup] = [
        _tag("text", f"{cells.row_name} ↓", x=0, y=12, class_="t"),
        _tag("text", f"{cells.column_name} →", x="100%", y=12, class_="t end"),
    ]
    bottom = _TOP + height * len(cells.rows)
    for index, (label, row) in enumerate(zip(cells.rows, cells.values, strict=True)):
        top = _TOP + height * index
        if index % max(every, -(-12 // height)) == 0:
            shapes.append(_tag("text", label, x=0, y=top + height - 3, class_="t"))
        for column, value in enumerate(row):
            where = f"{cells.row_name} {label}, {cells.column_name} {cells.columns[column]}"
            shapes.append(
                _tag(
                    "rect",
                    _tag("title", f"{where}: {fmt.number(value)} {cells.unit}".rstrip()),
                    x=_pct(_LEFT + column * width),
                    y=top,
                    width=_pct(width * 0.96),
                    height=height - 1,
                    class_=f"cell h{scale.step(value)}" + (" framed" if (index, column) in cells.outlined else ""),
                )
            )
    shown = max(1, -(-len(cells.columns) // 12))
    for column in range(0, len(cells.columns), shown):
        at = _LEFT + (column + 0.48) * width
        shapes.append(_tag("text", cells.columns[column], x=_pct(at), y=bottom + 14, class_="t mid"))
    shapes += _steps(scale, bottom + 26, cells.unit)
    worst = max(
        ((value, r, c) for r, row in enumerate(cells.values) for c, value in enumerate(row) if value is not None),
        default=None,
    )
    told = (
        "no value"
        if worst is None
        else f"largest {fmt.number(worst[0])} {cells.unit} at {cells.row_name} {cells.rows[worst[1]]}, "
        f"{cells.column_name} {cells.columns[worst[2]]}"
    )
    return _svg(bottom + 84, title=title, desc=f"{title}; {told}", body=shapes, class_="chart")


def _steps(scale: HeatScale, top: float, unit: str) -> list[Markup]:
    """The legend: a box a step with the value at which it begins."""
    width = (_RIGHT - _LEFT) / (STEPS + 1)
    shapes = []
    for step in range(STEPS + 1):
        at = _LEFT + step * width
        label = "less" if step == 0 else fmt.short(scale.edges[step - 1])
        shapes.append(_tag("rect", x=_pct(at), y=top, width=_pct(width * 0.94), height=12, class_=f"cell h{step}"))
        # in turn on two lines: on a telephone a label is as wide as its box
        shapes.append(_tag("text", label, x=_pct(at), y=top + 25 + 14 * (step % 2), class_="t"))
    return [*shapes, _tag("text", f"{unit}, from", x="100%", y=top + 54, class_="t end")]


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
    for tick in ticks(up, 17):
        shapes.append(_line_across(y_of(tick), "grid"))
        shapes.append(_tag("text", fmt.short(tick), x=0, y=y_of(tick) - 3, class_="t halo"))
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


@dataclass(frozen=True)
class Matched:
    """Two rows of layers, the pairs between them, and a short name for each layer without a partner."""

    reference: int
    candidate: int
    pairs: tuple[tuple[int, int], ...]
    reference_names: dict[int, str]
    candidate_names: dict[int, str]


def alignment_picture(matched: Matched, *, title: str, desc: str) -> Markup:
    """Boxes for layers, lines for pairs; a layer without a partner is filled and named."""
    widest = max(matched.reference, matched.candidate, 1)
    step = (_RIGHT - _LEFT) / widest
    upper, lower, tall = 36, 128, 20
    shapes: list[Markup] = []

    def x_of(layer: int) -> float:
        return _LEFT + (layer + 0.48) * step

    for ours, theirs in matched.pairs:
        shapes.append(
            _tag(
                "line",
                x1=_pct(x_of(ours)),
                x2=_pct(x_of(theirs)),
                y1=upper + tall,
                y2=lower,
                class_="match" if ours == theirs else "match moved",
            )
        )
    rows = (
        (upper, matched.reference, matched.reference_names, "ref.", "reference"),
        (lower, matched.candidate, matched.candidate_names, "cand.", "candidate"),
    )
    for top, count, names, short, side in rows:
        shapes.append(_tag("text", short, x=0, y=top + 14, class_="t"))
        for layer in range(count):
            name = names.get(layer)
            told = f"layer {layer} of the {side}" + (f": {name}" if name else "")
            shapes.append(
                _tag(
                    "rect",
                    _tag("title", told),
                    x=_pct(_LEFT + layer * step),
                    y=top,
                    width=_pct(step * 0.9),
                    height=tall,
                    class_="box" if name is None else "box alone",
                )
            )
        y = top - 8 if top == upper else top + tall + 17
        shown = max(1, -(-count // 12))
        shapes += [
            _tag("text", str(layer), x=_pct(x_of(layer)), y=y, class_="t mid") for layer in range(0, count, shown)
        ]
    return _svg(lower + tall + 24, title=title, desc=desc, body=shapes, class_="chart")


def _side(x: float) -> str:
    return "" if x < 15 else "end" if x > 85 else "mid"
