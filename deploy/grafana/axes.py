"""What a graph needs beside its lines: values in words, round values along an axis, where a line has gaps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

Points = Sequence[tuple[float, float]]
_ROUND: Final = (1.0, 2.0, 5.0, 10.0)
# Steps without a value that a line is drawn across: one late scrape is no gap.
_BRIDGED: Final = 3.5


def shown(value: float, unit: str, decimals: float | None) -> str:
    """A value as Grafana writes it, near enough."""
    if unit == "percentunit":
        return f"{100 * value:.{int(decimals or 0)}f} %"
    if unit in {"s", "dtdurations"}:
        for size, word in ((86400, "days"), (3600, "hours"), (60, "min"), (1, "s")):
            if abs(value) >= size:
                return f"{value / size:.3g} {word}"
        return f"{1000 * value:.0f} ms"
    number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{number}{unit.removeprefix('suffix:') if unit.startswith('suffix:') else ''}"


def ticks(low: float, high: float, *, most: int = 5) -> list[float]:
    """At most `most` multiples of 1, 2 or 5 times a power of ten, all within low < high."""
    rough = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    for factor in (*_ROUND, 20.0):
        step = factor * power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            break
    return [number * step for number in range(first, last + 1)]


def runs(points: Points, step: float) -> list[Points]:
    """The parts of a line that hang together: a gap is time in which nothing was known."""
    found: list[list[tuple[float, float]]] = []
    for at, value in points:
        if not found or at - found[-1][-1][0] > _BRIDGED * step:
            found.append([])
        found[-1].append((at, value))
    return list(found)
