"""A matrix as SVG: a row a decoder, a column a candidate, each cell with its number and a step of colour.

As in `marks` every horizontal place is in per cent and every height in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from app.reports.charts.marks import _pct, _svg, _tag

_LABELS: Final = 27.0  # per cent of the width that the row labels take
_WIDEST: Final = 24.0  # per cent of a column where there are few
_ROW: Final = 27
_GAP: Final = 0.5


@dataclass(frozen=True)
class MatrixCell:
    """One cell: what is in it, what it says when pointed at, and its step of heat, 0 (plain) to 7."""

    text: str
    title: str
    step: int


def matrix_chart(
    title: str, rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[MatrixCell]]
) -> Markup:
    """`cells[row][column]`. Raises ValueError if they do not fit the names."""
    if len(cells) != len(rows) or any(len(row) != len(columns) for row in cells):
        raise ValueError(f"cells do not fit {len(rows)} rows of {len(columns)} columns")
    width = min(_WIDEST, (100.0 - _LABELS) / max(1, len(columns)))
    top = 22 if len(columns) > 1 else 4
    shapes: list[Markup] = []
    if len(columns) > 1:
        shapes += [
            _tag("text", name, x=_pct(_LABELS + (index + 0.5) * width), y=14, class_="t mid")
            for index, name in enumerate(columns)
        ]
    for row, (name, listed) in enumerate(zip(rows, cells, strict=True)):
        y = top + row * _ROW
        shapes.append(_tag("text", name, x=0, y=y + 18, class_="t"))
        for column, cell in enumerate(listed):
            x = _LABELS + column * width
            shapes.append(
                _tag(
                    "rect",
                    _tag("title", cell.title),
                    x=_pct(x),
                    y=y,
                    width=_pct(width - _GAP),
                    height=_ROW - 2,
                    class_=f"heat h{cell.step}",
                )
            )
            ink = "t mid on-heat" if cell.step else "t mid strong"
            shapes.append(_tag("text", cell.text, x=_pct(x + (width - _GAP) / 2), y=y + 17, class_=ink))
    told = "; ".join(
        f"{name}: {', '.join(cell.title for cell in listed)}" for name, listed in zip(rows, cells, strict=True)
    )
    return _svg(top + len(rows) * _ROW + 2, title=title, desc=told, body=shapes, class_="chart")
