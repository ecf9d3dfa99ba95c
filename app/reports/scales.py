"""From values to places along an axis, in per cent of its length, and the ticks to label it with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from app.contracts.report import Mean


class Scale(Protocol):
    """An axis: `at(value)` is its place in per cent, outside values are put at the ends."""

    @property
    def candidates(self) -> tuple[float, ...]:
        """Round values on the axis, the roundest first."""
        ...

    def at(self, value: float) -> float:
        """Place of a value, 0 to 100."""
        ...

    def holds(self, value: float) -> bool:
        """Whether the value is on the axis."""
        ...


@dataclass(frozen=True)
class LogScale:
    """A logarithmic axis over 0 < low < high."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise ValueError(f"a logarithmic axis needs 0 < low < high, not {self.low} and {self.high}")

    @classmethod
    def around(cls, *values: float, margin: float = 1.25, least_ratio: float = 3.0) -> LogScale:
        """An axis that holds every positive value with a margin (a factor), `least_ratio` wide at least."""
        positive = [value for value in values if value > 0] or [1e-3, 1.0]
        low, high = min(positive) / margin, max(positive) * margin
        if high / low < least_ratio:
            middle = math.sqrt(low * high)
            low, high = middle / math.sqrt(least_ratio), middle * math.sqrt(least_ratio)
        return cls(low, high)

    def at(self, value: float) -> float:
        """Place of a value; zero and less stand at the low end."""
        if value <= self.low:
            return 0.0
        if value >= self.high:
            return 100.0
        return 100 * math.log(value / self.low) / math.log(self.high / self.low)

    def holds(self, value: float) -> bool:
        """Whether the value is on the axis."""
        return self.low <= value <= self.high

    @property
    def candidates(self) -> tuple[float, ...]:
        """Powers of ten, rising, then their fives, then their twos."""
        powers = range(math.floor(math.log10(self.low)) - 1, math.ceil(math.log10(self.high)) + 1)
        return tuple(value for digit in (1, 5, 2) for power in powers if self.holds(value := float(f"{digit}e{power}")))


@dataclass(frozen=True)
class LinearScale:
    """A linear axis over low < high."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"an axis needs low < high, not {self.low} and {self.high}")

    @classmethod
    def around_zero(cls, *means: Mean) -> LinearScale:
        """An axis that holds zero, every mean and every limit, with a margin."""
        known = [value for one in means for value in (one.mean, *(one.ci or ())) if value is not None]
        low, high = min([0.0, *known]), max([0.0, *known])
        margin = 0.06 * (high - low) or 1e-6
        return cls(low - margin, high + margin)

    def at(self, value: float) -> float:
        """Place of a value."""
        return min(100.0, max(0.0, 100 * (value - self.low) / (self.high - self.low)))

    def holds(self, value: float) -> bool:
        """Whether the value is on the axis."""
        return self.low <= value <= self.high

    @property
    def candidates(self) -> tuple[float, ...]:
        """Multiples of the steps 1, 2, 5 × 10^n that fit the axis, the coarser step first, zero before all."""
        power = 10.0 ** math.floor(math.log10(self.high - self.low))
        found: list[float] = [0.0] if self.holds(0.0) else []
        for step in (power, power / 2, power / 5, power / 10):
            found += [value for value in self._multiples(step) if value not in found]
        return tuple(found)

    def even(self, gap: float) -> tuple[float, ...]:
        """Multiples of the finest step 1, 2 or 5 × 10^n that leaves `gap` per cent between them, rising."""
        span = self.high - self.low
        power = 10.0 ** math.floor(math.log10(span))
        steps = [power * part for part in (0.1, 0.2, 0.5, 1, 2, 5) if 100 * power * part / span >= gap - 1e-9]
        return self._multiples(steps[0]) if steps else ()

    def _multiples(self, step: float) -> tuple[float, ...]:
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return tuple(round(index * step, 12) for index in range(first, last + 1))


def ticks(scale: Scale, gap: float) -> tuple[float, ...]:
    """Values to label, rising, `gap` per cent apart or more. On a linear axis they are at even distances, if two of
    them fit. Else they are the candidates in their order, each that is so far from those chosen."""
    if isinstance(scale, LinearScale) and len(even := scale.even(gap)) > 1:
        return even
    chosen: list[float] = []
    for value in scale.candidates:
        if all(abs(scale.at(value) - scale.at(other)) >= gap for other in chosen):
            chosen.append(value)
    return tuple(sorted(chosen))
