"""Differences with their intervals on one axis around zero, as SVG: a row each, its name and numbers above it.

As in `marks` every horizontal place is in per cent and every height in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from markupsafe import Markup

from app.reports.charts.marks import Interval, _dot, _line, _line_across, _pct, _svg, _tag, _ticks, _whisker
from app.reports.scales import LinearScale, ticks

Said = Literal["better", "worse", "no difference shown", "cannot be judged", "equal"]
_ROW: Final = 34
_MIDDLE: Final = 22
# Lines of a row about its middle: they end before the texts above and below, which may stand at any place.
_ABOVE: Final = 4
_BELOW: Final = 12
# A filled point is a difference that is shown, a ring is none; what cannot be judged has a cross.
_POINTS: Final[dict[Said, str]] = {
    "better": "point gain",
    "worse": "point loss",
    "no difference shown": "ring",
    "equal": "ring",
}


@dataclass(frozen=True)
class Gap:
    """One row: `label` is at the left, `text` at the right above the interval."""

    label: str
    text: str
    value: float
    ci: Interval | None
    said: Said


def differences_chart(gaps: Sequence[Gap], *, title: str, unit: str, left: str, right: str) -> Markup:
    """Points with whiskers about a line at zero, which is drawn in each row and left out behind texts. `left` and
    `right` say what a difference to that side means."""
    known = [0.0, *(value for gap in gaps for value in (gap.value, *(gap.ci or ())))]
    spread = (max(known) - min(known)) or 1.0
    scale = LinearScale(min(known) - 0.03 * spread, max(known) + 0.03 * spread)
    top = 20
    bottom = top + _ROW * len(gaps) + 2
    shapes: list[Markup] = []
    for row, gap in enumerate(gaps):
        y = top + row * _ROW + _MIDDLE
        at = scale.at(gap.value)
        shapes += [_line(scale.at(tick), y - _ABOVE, y + _BELOW, "grid") for tick in ticks(scale, 12)]
        shapes.append(_line(scale.at(0.0), y - _ABOVE, y + _BELOW, "base"))
        body = [_tag("title", f"{gap.label}: {gap.text}")]
        if gap.ci:
            body += _whisker(scale, gap.ci, y, cap=4)
        body.append(
            _tag("text", "×", x=_pct(at), y=y + 5, class_="t halo mid cross")
            if gap.said == "cannot be judged"
            else _dot(at, y, _POINTS[gap.said])
        )
        shapes.append(_tag("g", *body))
        shapes.append(_tag("text", gap.label, x=0, y=y - 9, class_="t halo strong"))
        shapes.append(_tag("text", gap.text, x="100%", y=y - 9, class_="t halo end"))
    shapes.append(_line_across(bottom, "base"))
    shapes += _ticks(scale, 17, bottom)
    shapes.append(_tag("text", f"◂ {left}", x=0, y=12, class_="t"))
    shapes.append(_tag("text", f"{right} ▸", x="100%", y=12, class_="t end"))
    shapes.append(_tag("text", unit, x="100%", y=bottom + 33, class_="t end"))
    told = "; ".join(f"{gap.label}: {gap.text}" for gap in gaps)
    return _svg(bottom + 38, title=title, desc=told, body=shapes, class_="chart")
