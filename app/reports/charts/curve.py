"""A quantity over the settings of a knob as SVG: points with intervals, the fitted form, its knee, and levels.

As in `marks` every horizontal place is in per cent and every height in pixels. The weakest setting is at
the left, whichever way its values run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from markupsafe import Markup

from app.reports import format as fmt
from app.reports.charts.marks import _NARROWEST, Interval, _anchor, _grid, _line, _line_across, _pct, _svg, _tag
from app.reports.scales import LinearScale, LogScale

_TOP: Final = 40
_PLOT: Final = 240
_LEFT, _RIGHT = 9.0, 96.0
# With levels, their names have the right end to themselves.
_RIGHT_OF_POINTS: Final = 83.0
# Labels of settings nearer than this, in per cent, would touch on a telephone.
_LABEL_GAP: Final = 9.0
# A place in per cent, and its label.
_Named = tuple[float, str]
# Settings of one place that its label names.
_MOST_TOGETHER: Final = 3
# Pixels between the base lines of two names, at least.
_NAME_HEIGHT: Final = 14.0
# Pixels of a character, at most.
_CHARACTER: Final = 6.6


@dataclass(frozen=True)
class CurveDot:
    """A setting: its place along the axis, its label there, what was measured. `broken`: not finite somewhere."""

    x: float
    label: str
    title: str
    y: float
    ci: Interval | None = None
    broken: bool = False


@dataclass(frozen=True)
class Level:
    """A horizontal line at a value, named at its right end."""

    y: float
    label: str
    kind: str = "overall"


@dataclass(frozen=True)
class Knee:
    """Where the fitted form turns, with its interval; `sure` is false where the points do not say where."""

    x: float
    ci: Interval
    label: str
    sure: bool


def curve_chart(
    dots: Sequence[CurveDot],
    *,
    title: str,
    y_title: str,
    x_title: str,
    fit: Sequence[tuple[float, float]] = (),
    knee: Knee | None = None,
    levels: Sequence[Level] = (),
) -> Markup:
    """The chart; y on a logarithmic axis. `fit` is a line through places and values of the same axes. Levels that lie
    far from every point are left out."""
    values = [value for dot in dots for value in (dot.y, *(dot.ci or ())) if value > 0]
    near = [level for level in levels if values and min(values) / 20 <= level.y <= max(values) * 20]
    up = LogScale.around(*values, *(level.y for level in near), margin=1.3)
    places = sorted({dot.x for dot in dots})
    spread = places[-1] - places[0] or 1.0
    across = LinearScale(places[0] - 0.03 * spread, places[-1] + 0.03 * spread)
    base, right = _TOP + _PLOT, _RIGHT_OF_POINTS if near else _RIGHT

    def x_of(x: float) -> float:
        return _LEFT + across.at(x) * (right - _LEFT) / 100

    def y_of(y: float) -> float:
        return base - _PLOT * up.at(y) / 100

    shapes: list[Markup] = [_tag("text", y_title, x=0, y=12, class_="t")]
    shapes += _grid(up, 14, y_of, fmt.short)
    shapes += _knee(knee, x_of, base)
    shapes += [
        _tag("line", x1=_pct(x_of(x)), x2=_pct(x_of(after)), y1=y_of(y), y2=y_of(lower), class_="mean")
        for (x, y), (after, lower) in pairwise([pair for pair in fit if across.holds(pair[0]) and pair[1] > 0])
    ]
    shapes += _levels(near, y_of, base)
    for dot in dots:
        shapes += _point(dot, x_of(dot.x), y_of, base)
    shapes.append(_line_across(base, "base"))
    shapes += _labels(dots, x_of, base)
    shapes.append(_tag("text", x_title, x="100%", y=base + 36, class_="t end"))
    told = "; ".join(dot.title for dot in dots)
    desc = f"{y_title}, on a logarithmic axis, against {x_title}. {told}"
    if knee is not None:
        desc += f". {knee.label}"
    return _svg(base + 42, title=title, desc=desc, body=shapes, class_="chart")


def _point(dot: CurveDot, x: float, y_of: Callable[[float], float], base: float) -> list[Markup]:
    place: float = y_of(dot.y)
    shapes = []
    if dot.ci:
        ends = [y_of(max(end, 0.0)) for end in dot.ci]
        shapes.append(_tag("line", x1=_pct(x), x2=_pct(x), y1=min(base, ends[0]), y2=ends[1], class_="whisker"))
    kind = "ring" if dot.broken else "point"
    shapes.append(_tag("circle", _tag("title", dot.title), cx=_pct(x), cy=place, r=5, class_=kind))
    return shapes


def _knee(knee: Knee | None, x_of: Callable[[float], float], base: float) -> list[Markup]:
    """A line at the knee, its interval as a bar on the axis, and its name above."""
    if knee is None:
        return []
    at, low, high = (x_of(x) for x in (knee.x, *knee.ci))
    bar = _tag(
        "rect",
        _tag("title", knee.label),
        x=_pct(low),
        y=base - 7,
        width=_pct(max(0.3, high - low)),
        height=7,
        class_="bar",
    )
    line = _line(at, _TOP - 4, base, "tail" if knee.sure else "floor")
    # Over its line, but never past the ends of the chart on a telephone.
    half = min(50.0, 50 * _CHARACTER * len(knee.label) / _NARROWEST)
    name = _tag("text", knee.label, x=_pct(min(100 - half, max(half, at))), y=_TOP - 8, class_="t halo mid")
    return [bar, line, name]


def _levels(levels: Sequence[Level], y_of: Callable[[float], float], base: float) -> list[Markup]:
    """Lines from the highest down; a name that would touch the one above is below its line, and where that is
    under the axis, those above make room."""
    ordered = sorted(levels, key=lambda one: -one.y)
    texts: list[float] = []
    for level in ordered:
        y: float = y_of(level.y)
        texts.append(y - 4 if not texts or y - 4 - texts[-1] >= _NAME_HEIGHT else y + 13)
    floor = base - 4
    for place in reversed(range(len(texts))):
        texts[place] = min(texts[place], floor)
        floor = texts[place] - _NAME_HEIGHT
    shapes = []
    for level, text in zip(ordered, texts, strict=True):
        shapes.append(_line_across(y_of(level.y), level.kind))
        shapes.append(_tag("text", level.label, x="100%", y=text, class_="t halo end"))
    return shapes


def _labels(dots: Sequence[CurveDot], x_of: Callable[[float], float], base: float) -> list[Markup]:
    """The settings by name below the axis, those of one place together, as far as there is room."""
    names: dict[float, list[str]] = {}
    for dot in sorted(dots, key=lambda dot: dot.x):
        names.setdefault(dot.x, []).append(dot.label)
    places = [(float(x_of(x)), _together(labels)) for x, labels in names.items()]
    shapes = [_line(at, base, base + 4, "tick") for at, _ in places]
    return shapes + [
        _tag("text", label, x=_pct(at), y=base + 18, class_=f"t {_anchor(at) or 'mid'}")
        for at, label in _in_turn(places)
    ]


def _in_turn(places: Sequence[_Named]) -> list[_Named]:
    """Both ends, and from the first on each one that has room beside those chosen."""
    chosen: list[_Named] = []
    for place in [places[0], *places[:0:-1][:1], *places[1:-1]]:
        if all(_apart(place, other) for other in chosen):
            chosen.append(place)
    return chosen


def _apart(one: _Named, other: _Named) -> bool:
    """Whether two labels, each about its place, do not touch: 2.2 per cent a character on a telephone."""
    return abs(one[0] - other[0]) >= max(_LABEL_GAP, 1.1 * (len(one[1]) + len(other[1])))


def _together(labels: Sequence[str]) -> str:
    return ", ".join(labels[:_MOST_TOGETHER]) + (", …" if len(labels) > _MOST_TOGETHER else "")
