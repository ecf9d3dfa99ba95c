"""Two knobs as SVG: a cell a setting, coloured and numbered, and the line of the chosen loss across them.

The first place of either axis is the knob left out; x grows to the right and y upwards. The line's points lie on the
middles of rows or of columns, so numbers stand in the lower part of their cells. If the line still meets one, it breaks
off at a rim of the cell's colour. As in `marks` every horizontal place is in per cent and every height in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from markupsafe import Markup

from app.reports.charts.marks import _line, _pct, _svg, _tag

_LABELS: Final = 13.0  # per cent of the width that the labels of the rows take
_ROW: Final = 40
# From a cell's middle down to its number's baseline: beside a line, and without one.
_BELOW: Final = 13
_MIDDLE: Final = 4
_TOP: Final = 30
# With more columns than this a cell has no room for its number on a telephone; it then says it when pointed at.
_MOST_NUMBERED: Final = 9
STEPS: Final = 7

Line = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Square:
    """One setting: its number, what it says when pointed at, its step of heat, and whether it is the chosen one.
    Steps go from 0 (plain) to 7, the other way from −1 to −7."""

    text: str
    title: str
    step: int
    marked: bool = False


@dataclass(frozen=True)
class Axis:
    """A knob's name and the labels of its settings, from left out on."""

    name: str
    labels: Sequence[str]


def surface_chart(
    across: Axis, up: Axis, squares: Sequence[Sequence[Square | None]], lines: Sequence[Line], *, title: str, desc: str
) -> Markup:
    """`squares[x][y]`, None if there is no number; `lines` go through (place on x, place on y).

    Raises ValueError if squares do not fit the axes.
    """
    columns, rows = len(across.labels), len(up.labels)
    if len(squares) != columns or any(len(column) != rows for column in squares):
        raise ValueError(f"squares do not fit {columns} columns of {rows} rows")
    width = (100.0 - _LABELS) / columns
    bottom = _TOP + rows * _ROW

    def x_of(place: float) -> float:
        return _LABELS + (place + 0.5) * width

    def y_of(place: float) -> float:
        return bottom - (place + 0.5) * _ROW

    drop = _BELOW if any(lines) else _MIDDLE
    shapes: list[Markup] = [_tag("text", up.name, x=0, y=14, class_="t strong")]
    texts: list[Markup] = []
    for row, label in enumerate(up.labels):
        shapes.append(_tag("text", label, x=_pct(_LABELS - 1.5), y=y_of(row) + _MIDDLE, class_="t end"))
    for column, label in enumerate(across.labels):
        shapes.append(_tag("text", label, x=_pct(x_of(column)), y=bottom + 17, class_="t mid"))
        for row in range(rows):
            square = squares[column][row]
            if square is None:
                continue
            shade = f"h{square.step}" if square.step >= 0 else f"c{-square.step}"
            # In greys both ways are alike: the rim distinguishes them.
            kind = f"heat {shade}{' cool' if square.step < 0 else ''}{' chosen' if square.marked else ''}"
            inset = 0.35 if square.marked else 0.2
            shapes.append(
                _tag(
                    "rect",
                    _tag("title", square.title),
                    x=_pct(_LABELS + column * width + inset),
                    y=bottom - (row + 1) * _ROW + 1.5,
                    width=_pct(width - 2 * inset),
                    height=_ROW - 3,
                    class_=kind,
                )
            )
            if columns <= _MOST_NUMBERED:
                ink = f"t mid halo {shade}" + (" on-heat" if square.step else "")
                texts.append(_tag("text", square.text, x=_pct(x_of(column)), y=y_of(row) + drop, class_=ink))
    path = [
        _tag(
            "line", x1=_pct(x_of(one[0])), x2=_pct(x_of(other[0])), y1=y_of(one[1]), y2=y_of(other[1]), class_="contour"
        )
        for line in lines
        for one, other in pairwise(line)
    ]
    shapes.append(_line(_LABELS, _TOP, bottom, "base"))
    shapes.append(_tag("line", x1=_pct(_LABELS), x2="100%", y1=bottom, y2=bottom, class_="base"))
    shapes.append(_tag("text", across.name, x="100%", y=bottom + 36, class_="t strong end"))
    return _svg(bottom + 42, title=title, desc=desc, body=[*shapes, *path, *texts], class_="chart")
