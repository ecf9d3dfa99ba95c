"""Charts as SVG: pure functions from numbers to markup.

Every horizontal place is in per cent and every height in pixels, so that a chart takes any width while its text keeps
its size. Colours come from classes that the style sheet binds to the theme. Each chart carries a title and a
description for those who cannot see it; the page shows the same numbers as a table beside or below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

from app.contracts.report import SEVERITIES, Histogram
from app.contracts.request import Thresholds
from app.reports import format as fmt
from app.reports.scales import LinearScale, LogScale, Scale, ticks

Interval = tuple[float, float]

_NARROWEST = 330.0  # pixels that a chart gets on a telephone
_LABEL_ROW = 16
_PLAIN, _BOLD = 6.8, 7.2  # pixels of a character of a label, in the widest of the fonts that pages take
_STRIP_GAP = 36.0  # per cent between the ticks of an axis below strips, at least: labels have room in a narrow column
_STRIP_EDGE = 7.0  # per cent: a label that is centred nearer to an end would leave the page of a telephone


@dataclass(frozen=True)
class Mark:
    """A labelled vertical line at a value. `kind` is a class of the style sheet: "mean", "median", "tail", "floor"."""

    value: float
    label: str
    kind: str


@dataclass(frozen=True)
class Guide:
    """An unlabelled vertical line through the rows of a table chart."""

    value: float
    kind: str


def threshold_chart(
    excess: float,
    ci: Interval | None,
    thresholds: Thresholds,
    *,
    floor: float | None,
    detectable: float | None,
    classes: Sequence[str] = (),
) -> Markup:
    """Where the excess KL and its interval stand among the severity classes, on a logarithmic axis in nats per token.

    The names of `classes` (those that the verdict names) are set in bold.

    What is zero or less has no place on such an axis: an arrow before its label at the low end says so.
    """
    edges = [thresholds.mild, thresholds.moderate, thresholds.severe, thresholds.collapse]
    shown = [excess, *(ci or ()), floor or 0.0, detectable or 0.0]
    low = min([edges[0] / 4, *(value / 2 for value in shown if value > 0)])
    high = max([edges[-1] * 3.5, *(value * 1.6 for value in shown)])
    scale = LogScale(low, high)
    places = [0.0, *(scale.at(edge) for edge in edges), 100.0]

    bands = list(zip(SEVERITIES, pairwise(places), strict=True))
    crowded = any(_NARROWEST * (right - left) / 100 < 6.6 * len(name) + 4 for name, (left, right) in bands)
    rows = [index % 3 if crowded else 0 for index in range(len(bands))]
    names_y = 2 * _LABEL_ROW - 3
    top = names_y + 7 + _LABEL_ROW * max(rows)
    middle, bottom = top + 17, top + 34

    shapes: list[Markup] = []
    texts: list[Markup] = []
    for index, (name, (left, right)) in enumerate(bands):
        shapes.append(_tag("rect", x=_pct(left), y=top, width=_pct(right - left), height=34, class_=f"band sev-{name}"))
        y = names_y + _LABEL_ROW * (max(rows) - rows[index])
        weight = " strong" if name in classes else ""
        # The last name is no narrower than its band on a small screen, and ends with the axis there.
        last = crowded and index == len(bands) - 1
        x, anchor = (100.0, "end") if last else ((left + right) / 2, "mid")
        texts.append(_tag("text", name, x=_pct(x), y=y, class_=f"t {anchor} halo{weight}"))
        if rows[index]:
            shapes.append(_line((left + right) / 2, y + 4, top, "leader"))
    for edge in edges:
        shapes.append(_line(scale.at(edge), top, bottom + 5, "tick"))
        texts.append(_tag("text", fmt.short(edge), x=_pct(scale.at(edge)), y=bottom + 17, class_="t mid"))

    row = bottom + 17
    for mark in _floor_and_detectable(floor, detectable):
        row += _LABEL_ROW
        if mark.value > 0:
            shapes.append(_line(scale.at(mark.value), top, row - 10, mark.kind))
        texts.append(_placed(mark.label, scale.at(mark.value), row, off=mark.value <= 0))

    at = scale.at(excess)
    shapes.append(_line(at, 15, middle, "leader"))
    if ci:
        shapes += _whisker(scale, ci, middle, cap=6)
    shapes.append(_dot(at, middle, "estimate"))
    label = f"excess {fmt.estimate(excess, ci)} nats"
    texts.append(_placed(label, at, 11, off=excess <= 0, class_="strong"))

    names = ", ".join(f"{name} from {fmt.short(edge)}" for name, edge in zip(SEVERITIES[1:], edges, strict=True))
    return _svg(
        row + 6,
        title=f"Excess KL {fmt.estimate(excess, ci)} nats per token against the thresholds",
        desc=f"Logarithmic axis in nats per token. Classes: {names}. Noise floor {fmt.number(floor)}.",
        body=[*shapes, *texts],
        class_="chart",
    )


def _floor_and_detectable(floor: float | None, detectable: float | None) -> list[Mark]:
    if floor is None:
        return []
    marks = [Mark(floor, f"noise floor {fmt.number(floor)}" if floor > 0 else "noise floor exactly 0", "floor")]
    if detectable:
        marks.append(Mark(detectable, f"detectable from {fmt.number(detectable, 2)}", "detectable"))
    return marks


def histogram_chart(histogram: Histogram, marks: Sequence[Mark]) -> Markup:
    """The distribution of per-token KL over a logarithmic axis, with `marks` drawn and labelled above it.

    Bars are shares of all positions; where the bins differ in width, shares per factor of ten. Positions outside the
    edges stand in bars of their own at the ends.
    """
    edges, counts, below, above = _positive_bins(histogram)
    total = max(1, sum(counts) + below + above)
    filled = [index for index, bin_count in enumerate(counts) if bin_count]
    if not filled:
        return _all_outside(total, below, above)
    keep = slice(filled[0], filled[-1] + 1)
    edges, counts = edges[keep.start : keep.stop + 1], counts[keep]
    on_axis = [mark.value for mark in marks if mark.value > 0]
    scale = LogScale(min([edges[0], *on_axis]), max([edges[-1], *on_axis]) * 1.0001)
    left, right = (9.0 if below else 0.0), (93.0 if above else 100.0)

    def place(value: float) -> float:
        return left + scale.at(value) * (right - left) / 100

    decades = [math.log10(high / low) for low, high in pairwise(edges)]
    even = max(decades) <= min(decades) * 1.02
    heights = [bin_count / total / (1.0 if even else width) for bin_count, width in zip(counts, decades, strict=True)]
    tallest = max([*heights, below / total, above / total])
    y_scale = LinearScale(0.0, tallest * 1.04)
    top, plot = _LABEL_ROW * len(marks) + 8, 132
    base = top + plot

    def y_of(share: float) -> float:
        return base - plot * y_scale.at(share) / 100

    shapes: list[Markup] = []
    texts: list[Markup] = []
    for tick in ticks(y_scale, 30)[1:]:
        shapes.append(_line_across(y_of(tick), "grid"))
        texts.append(_tag("text", f"{tick * 100:g} %", x=0, y=y_of(tick) - 3, class_="t faint halo"))
    bars = [
        (place(low), place(high), height, f"{fmt.short(low)} to {fmt.short(high)} nats", bin_count)
        for (low, high), height, bin_count in zip(pairwise(edges), heights, counts, strict=True)
    ]
    if below:
        bars.append((0.0, 6.0, below / total, f"below {fmt.short(edges[0])} nats, exact zeros included", below))
        texts.append(_tag("text", f"< {fmt.short(edges[0])}", x=0, y=base + 15, class_="t halo"))
    if above:
        bars.append((95.0, 100.0, above / total, f"above {fmt.short(edges[-1])} nats", above))
        texts.append(_tag("text", f"> {fmt.short(edges[-1])}", x="100%", y=base + 15, class_="t end halo"))
    for start, end, share, what, bin_count in bars:
        if bin_count:
            shapes.append(_bar(start, end, y_of(share), base, f"{what}: {fmt.count(bin_count)} positions"))
    shapes.append(_line_across(base, "base"))
    for tick in ticks(scale, 10):
        if not (below and place(tick) < 16) and not (above and place(tick) > 88):
            shapes.append(_line(place(tick), base, base + 4, "tick"))
            texts.append(
                _tag("text", fmt.short(tick), x=_pct(place(tick)), y=base + 15, class_="t " + _anchor(place(tick)))
            )
    for index, mark in enumerate(sorted(marks, key=lambda mark: mark.value)):
        y, at = _LABEL_ROW * index + 12, place(mark.value)
        anchor = "end" if at > 50 else ""
        if mark.value > 0:
            shapes.append(_line(at, y + 3, base, mark.kind))
        texts.append(_placed(mark.label, at if mark.value > 0 else 0.0, y, off=mark.value <= 0, anchor=anchor))
    return _svg(
        base + 20,
        title="Distribution of per-token KL",
        desc=f"Share of {fmt.count(total)} positions by KL in nats, logarithmic axis. "
        + "; ".join(mark.label for mark in marks),
        body=[*shapes, *texts],
        class_="chart",
    )


def _positive_bins(histogram: Histogram) -> tuple[list[float], list[int], int, int]:
    """Edges and counts without bins that start at zero, which have no place on a logarithmic axis."""
    edges, counts, below = list(histogram.edges), list(histogram.counts), histogram.below
    while edges and edges[0] <= 0:
        edges.pop(0)
        if counts:
            below += counts.pop(0)
    return edges, counts, below, histogram.above


def _all_outside(total: int, below: int, above: int) -> Markup:
    if above:
        where = f"{fmt.percent(above / total)} % of positions lie over the axis, the others under it"
    elif below:
        where = "every position is exactly zero, or too small to draw"
    else:
        where = "no position has a finite value"
    return _svg(
        40,
        title="Distribution of per-token KL",
        desc=f"{fmt.count(below)} positions under the axis, {fmt.count(above)} over it",
        body=[_line_across(14, "base"), _tag("text", where.capitalize(), x=0, y=32, class_="t")],
        class_="chart",
    )


def interval_strip(
    title: str, mean: float | None, ci: Interval | None, scale: Scale, guides: Sequence[Guide] = ()
) -> Markup:
    """One row of a dot-and-interval chart; rows on the same scale stand above each other in a table."""
    shapes = [_line(scale.at(guide.value), 0, 24, guide.kind) for guide in guides if scale.holds(guide.value)]
    shapes.append(_line_across(12, "grid"))
    if ci:
        shapes += _whisker(scale, ci, 12, cap=4)
    if mean is not None:
        shapes.append(_dot(scale.at(mean), 12, "point"))
    return _svg(24, title=title, body=shapes, class_="strip")


def change_strip(title: str, before: float | None, after: float | None, scale: Scale) -> Markup:
    """One row: a ring where a value was, a dot where it is, and the way between them."""
    shapes = [_line_across(12, "grid")]
    if before is not None and after is not None:
        ends = scale.at(before), scale.at(after)
        kind = "way gain" if after <= before else "way loss"
        shapes.append(_tag("line", x1=_pct(ends[0]), x2=_pct(ends[1]), y1=12, y2=12, class_=kind))
    if before is not None:
        shapes.append(_dot(scale.at(before), 12, "ring"))
    if after is not None:
        shapes.append(_dot(scale.at(after), 12, "point"))
    return _svg(24, title=title, body=shapes, class_="strip")


def axis(scale: Scale, title: str) -> Markup:
    """The axis below a column of strips."""
    shapes: list[Markup] = []
    for tick in ticks(scale, _STRIP_GAP):
        at = scale.at(tick)
        anchor = "" if at < _STRIP_EDGE else "end" if at > 100 - _STRIP_EDGE else "mid"
        shapes.append(_line(at, 0, 4, "tick"))
        shapes.append(_tag("text", fmt.short(tick), x=_pct(at), y=16, class_="t " + anchor))
    return _svg(20, title=title, body=shapes, class_="strip")


def share_bar(title: str, share: float) -> Markup:
    """A bar that fills `share` of its width."""
    return _svg(14, title=title, body=[_bar(0.0, 100 * min(1.0, max(0.0, share)), 2, 12, title)], class_="strip")


def _svg(height: float, *, title: str, body: Sequence[Markup], class_: str, desc: str = "") -> Markup:
    head = [_tag("title", title)] + ([_tag("desc", desc)] if desc else [])
    return _tag("svg", *head, *body, class_=class_, role="img", width="100%", height=height)


def _whisker(scale: Scale, ci: Interval, y: float, *, cap: float) -> list[Markup]:
    low, high = scale.at(ci[0]), scale.at(ci[1])
    shapes = [_tag("line", x1=_pct(low), x2=_pct(high), y1=y, y2=y, class_="whisker")]
    shapes += [_line(scale.at(bound), y - cap, y + cap, "whisker") for bound in ci if scale.holds(bound)]
    return shapes


def _dot(at: float, y: float, kind: str) -> Markup:
    return _tag("circle", cx=_pct(at), cy=y, r=5.5 if kind == "estimate" else 4, class_=kind)


def _bar(start: float, end: float, top: float, base: float, title: str, class_: str = "bar") -> Markup:
    width = max(0.15, end - start)
    return _tag(
        "rect",
        _tag("title", title),
        x=_pct(start),
        y=top,
        width=_pct(width),
        height=max(1.0, base - top),
        class_=class_,
    )


def _line(at: float, top: float, bottom: float, kind: str) -> Markup:
    return _tag("line", x1=_pct(at), x2=_pct(at), y1=top, y2=bottom, class_=kind)


def _line_across(y: float, kind: str) -> Markup:
    return _tag("line", x1="0%", x2="100%", y1=y, y2=y, class_=kind)


def _grid(scale: Scale, gap: float, y_of: Callable[[float], float], label: Callable[[float], str]) -> list[Markup]:
    """Lines across at the ticks of an upright axis, with their labels at the left."""
    found = []
    for tick in ticks(scale, gap):
        found.append(_line_across(y_of(tick), "grid"))
        found.append(_tag("text", label(tick), x=0, y=y_of(tick) - 3, class_="t halo"))
    return found


def _ticks(scale: Scale, gap: float, y: float, x_of: Callable[[float], float] | None = None) -> list[Markup]:
    """The ticks of an axis along the bottom at `y`, and their labels below it."""
    found = []
    for tick in ticks(scale, gap):
        at = scale.at(tick) if x_of is None else x_of(tick)
        found.append(_line(at, y, y + 4, "tick"))
        found.append(_tag("text", fmt.short(tick), x=_pct(at), y=y + 17, class_="t " + _anchor(at)))
    return found


def _upright(x: float, ci: Interval, y_of: Callable[[float], float]) -> Markup:
    """An interval as an upright whisker."""
    return _tag("line", x1=_pct(x), x2=_pct(x), y1=y_of(ci[0]), y2=y_of(ci[1]), class_="whisker")


def _placed(
    label: str, at: float, y: float, *, off: bool = False, class_: str = "", anchor: str | None = None
) -> Markup:
    """A label at a place, held inside the chart; `off` marks one whose value is left of the axis."""
    text = f"◂ {label}" if off else label
    if anchor is None:
        anchor = "" if at < 35 else "mid" if at <= 65 else "end"
        at = _inside(at, anchor, 100 * (_BOLD if class_ == "strong" else _PLAIN) * len(text) / _NARROWEST)
    return _tag("text", text, x=_pct(at), y=y, class_=" ".join(filter(None, ["t halo", anchor, class_])))


def _inside(at: float, anchor: str, width: float) -> float:
    """The place of a label so wide, moved so that it ends inside a chart on a telephone, where it fits into one."""
    before = {"": 0.0, "mid": width / 2, "end": width}[anchor]
    return min(max(at, before), max(before, 100 - width + before))


def _anchor(at: float) -> str:
    return "" if at < 4 else "end" if at > 96 else "mid"


def _pct(place: float) -> str:
    return f"{place:.2f}%"


def _tag(name: str, *children: str, **attributes: str | float) -> Markup:
    """An element; text children and attribute values are escaped. `class_` is class."""
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_"), f"{value:.6g}" if isinstance(value, float) else value)
        for key, value in attributes.items()
    )
    inside = Markup("").join(map(escape, children))
    return Markup("<{0}{1}>{2}</{0}>").format(name, written, inside)
