"""Box bounds on the coefficients of the published form."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from workers.analysis.threshold.curve import Array, Curve

Bound = tuple[float | None, float | None]
_OPEN: Bound = (None, None)


@dataclass(frozen=True)
class Bounds:
    """Lower and upper bound of each coefficient; None is open, equal bounds fix it.

    `a` is bounded itself, not its logarithm. An open bound of `s0` is the end of the measured range: beyond it no point
    distinguishes one regime from the other.
    """

    a: Bound = _OPEN
    b: Bound = _OPEN
    s0: Bound = _OPEN
    k1: Bound = _OPEN
    k2: Bound = _OPEN

    def __post_init__(self) -> None:
        for name in NAMES:
            low, high = getattr(self, name)
            if low is not None and high is not None and low > high:
                raise ValueError(f"{name}: the lower bound {low} is above the upper bound {high}")
        if self.a[1] is not None and self.a[1] <= 0:
            raise ValueError("a is positive, so its upper bound is too")

    def box(self) -> tuple[Array, Array]:
        """Bounds of (ln a, b, k1, k2), ±inf where open."""
        low, high = self.a
        log_a = (None if low is None or low <= 0 else math.log(low), None if high is None else math.log(high))
        pairs = (log_a, self.b, self.k1, self.k2)
        return (
            np.array([-np.inf if low is None else low for low, _ in pairs]),
            np.array([np.inf if high is None else high for _, high in pairs]),
        )

    def knee_range(self, curve: Curve) -> tuple[float, float]:
        """Where s0 is looked for: its bounds within the measured range. Raises ValueError if they do not meet."""
        low, high = self.s0
        first, last = float(curve.s_N[0]), float(curve.s_N[-1])
        low, high = first if low is None else max(low, first), last if high is None else min(high, last)
        if low > high:
            raise ValueError(f"s0 is bounded to {list(self.s0)}, outside the measured range [{first:g}, {last:g}]")
        return low, high

    def fixed(self, name: str) -> bool:
        """Whether the bounds leave a coefficient no freedom."""
        low, high = getattr(self, name)
        return low is not None and low == high

    def as_json(self) -> dict[str, list[float | None]]:
        """As they stand in a request."""
        return {name: list(getattr(self, name)) for name in NAMES}


NAMES = tuple(field.name for field in fields(Bounds))
