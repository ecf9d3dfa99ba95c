"""The Pareto front as SVG: KL with its interval against bytes, and tokens/s below, on one axis of bytes.

As in `marks` every horizontal place is in per cent and every height in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from markupsafe import Markup

from app.reports import format as fmt
from app.reports.charts.marks import Interval, _grid, _line, _line_across, _pct, _svg, _tag, _ticks, _upright
from app.reports.scales import LinearScale, LogScale, Scale, ticks

_MEBIBYTE: Final = 1024.0**2
_TOP: Final = 36  # so that the topmost number is clear of the title of its axis
_PLOT: Final = 250
_GAP: Final = 42
_SPEEDS: Final = 84
# Points stand between these places, so that labels and intervals have room.
_LEFT, _RIGHT = 9.0, 96.0
# Labels of neighbours closer than this, in per cent, take turns above and below.
_CLOSE: Final = 4.0


@dataclass(frozen=True)
class Dot:
    """A recipe on the front, or beside it (`on_front` false: drawn small and without a label)."""

    label: str
    title: str
    bytes: int
    kl: float
    ci: Interval | None
    tokens_per_second: float | None
    kind: str  # "candidate", "front", "recommended", "beside"

    @property
    def on_front(self) -> bool:
        """Whether it is named in the chart."""
        return self.kind != "beside"


def front_chart(dots: Sequence[Dot], *, budget: int | None, note: str) -> Markup:
    """The chart; `budget` in bytes is drawn where it is near. KL on a logarithmic axis, zero at its low end."""
    sizes = [dot.bytes / _MEBIBYTE for dot in dots]
    if budget is not None and budget / _MEBIBYTE < max(sizes) + 1.2 * (max(sizes) - min(sizes)) + 0.02 * max(sizes):
        sizes.append(budget / _MEBIBYTE)
    else:
        budget = None
    spread = max(sizes) - min(sizes) or 0.1 * max(sizes)
    across = LinearScale(min(sizes) - 0.04 * spread, max(sizes) + 0.06 * spread)
    values = [value for dot in dots for value in (dot.kl, *(dot.ci or ())) if value > 0]
    up = LogScale.around(*values, margin=1.35)
    base = _TOP + _PLOT

    def x_of(size: float) -> float:
        return _LEFT + across.at(size / _MEBIBYTE) * (_RIGHT - _LEFT) / 100

    def y_of(kl: float) -> float:
        return base - _PLOT * up.at(kl) / 100

    shapes: list[Markup] = [_tag("text", "KL, nats per token", x=0, y=12, class_="t")]
    shapes += _grid(up, 12, y_of, fmt.short)
    bottom = base + _GAP + _SPEEDS
    if budget is not None:
        at = x_of(budget)
        shapes.append(_line(at, _TOP - 6, bottom, "tail"))
        shapes.append(_tag("text", "budget", x=_pct(at), y=_TOP - 10, class_="t " + ("end" if at > 85 else "mid")))
    named = sorted((dot for dot in dots if dot.on_front), key=lambda dot: (dot.bytes, -dot.kl))
    shapes += _staircase([(x_of(dot.bytes), y_of(dot.kl)) for dot in named])
    shapes += [_circle(x_of(dot.bytes), y_of(dot.kl), "ring", dot.title, 3) for dot in dots if not dot.on_front]
    last, above = -100.0, True
    for dot in named:
        x, y = x_of(dot.bytes), y_of(dot.kl)
        if dot.ci:
            shapes.append(_upright(x, dot.ci, y_of))
        kind = {"candidate": "ring", "recommended": "estimate"}.get(dot.kind, "point")
        shapes.append(_circle(x, y, kind, dot.title, 7 if dot.kind == "recommended" else 5))
        above = not above if x - last < _CLOSE else True
        last = x
        ends = [y_of(bound) for bound in dot.ci or (dot.kl,)]
        place = min(*ends, y) - 8 if above else max(*ends, y) + 16
        place = max(_TOP + 4, min(base - 4, place))
        weight = " strong" if dot.kind in {"recommended", "candidate"} else ""
        shapes.append(_tag("text", dot.label, x=_pct(x), y=place, class_=f"t halo {_side(x)}{weight}"))
    shapes.append(_line_across(base, "base"))
    shapes += _speeds(named, x_of, base + _GAP)
    shapes.append(_line_across(bottom, "base"))
    shapes += _ticks(across, 15, bottom, lambda size: x_of(size * _MEBIBYTE))
    shapes.append(_tag("text", "MiB, as the weights take packed", x="100%", y=bottom + 34, class_="t end"))
    told = "; ".join(f"{dot.label}: {dot.title}" for dot in named)
    return _svg(
        bottom + 40, title=note, desc=f"KL on a logarithmic axis against bytes. {told}", body=shapes, class_="chart"
    )


def _speeds(dots: Sequence[Dot], x_of: Callable[[float], float], top: float) -> list[Markup]:
    """Bars of tokens/s from zero, at the places of the points above."""
    known = [dot for dot in dots if dot.tokens_per_second]
    shapes = [_tag("text", "tokens/s of the engine that scores", x=0, y=top - 18, class_="t")]
    if not known:
        return shapes
    scale: Scale = LinearScale(0.0, max(dot.tokens_per_second or 0.0 for dot in known) * 1.15)
    for tick in [tick for tick in ticks(scale, 45) if tick > 0]:
        y = top + _SPEEDS * (1 - scale.at(tick) / 100)
        shapes.append(_line_across(y, "grid"))
        shapes.append(_tag("text", fmt.count(round(tick)), x=0, y=y - 3, class_="t halo"))
    for dot in known:
        x, value = x_of(dot.bytes), dot.tokens_per_second or 0.0
        y = top + _SPEEDS * (1 - scale.at(value) / 100)
        title = f"{dot.label}: {fmt.count(round(value))} tokens/s"
        shapes.append(_line(x, y, top + _SPEEDS, "leader"))
        shapes.append(_circle(x, y, "ring" if dot.kind == "candidate" else "point", title, 4))
    return shapes


def _staircase(places: Sequence[tuple[float, float]]) -> list[Markup]:
    """From point to point: as many bytes as the next one needs, before KL falls."""
    shapes = []
    for (x, y), (right, lower) in pairwise(places):
        shapes.append(_tag("line", x1=_pct(x), x2=_pct(right), y1=y, y2=y, class_="overall"))
        shapes.append(_tag("line", x1=_pct(right), x2=_pct(right), y1=y, y2=lower, class_="overall"))
    return shapes


def _circle(x: float, y: float, kind: str, title: str, radius: float) -> Markup:
    return _tag("circle", _tag("title", title), cx=_pct(x), cy=y, r=radius, class_=kind)


def _side(x: float) -> str:
    return "" if x < 12 else "end" if x > 90 else "mid"
