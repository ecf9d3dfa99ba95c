"""A curve: how a positive quantity (perplexity, or mean KL in nats) grows with the share s of the model removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

FEWEST_POINTS = 5
MOST_POINTS = 200
# Measured values carry no more than six digits. Residuals (in logs) below this are taken for rounding: without a floor
# a curve computed from the form itself would have no noise at all, and every ratio of sums of squares would be 0/0.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Curve:
    """Points in rising order of s: `s_N` in (0, 1], `log_N` the natural logarithms of the values."""

    s_N: Array
    log_N: Array

    @classmethod
    def of(cls, s: ArrayLike, values: ArrayLike) -> Self:
        """The curve of points in any order.

        Raises ValueError for fewer than 5 or more than 200 points, s outside (0, 1] or given twice, and values that are
        not positive and finite.
        """
        s_N, value_N = np.asarray(s, dtype=np.float64), np.asarray(values, dtype=np.float64)
        if s_N.ndim != 1 or s_N.shape != value_N.shape:
            raise ValueError(f"s has shape {s_N.shape}, the values {value_N.shape}; two equal rows are needed")
        if not FEWEST_POINTS <= len(s_N) <= MOST_POINTS:
            raise ValueError(f"{len(s_N)} points; {FEWEST_POINTS} to {MOST_POINTS} are needed")
        if not ((s_N > 0) & (s_N <= 1)).all():
            raise ValueError("every s is above 0 and at most at 1")
        if not (np.isfinite(value_N) & (value_N > 0)).all():
            raise ValueError("every value is positive and finite")
        order = np.argsort(s_N, kind="stable")
        s_N = s_N[order]
        if (np.diff(s_N) == 0).any():
            raise ValueError("an s is given twice")
        return cls(s_N, np.log(value_N[order]))

    def __len__(self) -> int:
        return len(self.s_N)

    def without(self, index: int) -> Curve:
        """The curve without one point."""
        return Curve(np.delete(self.s_N, index), np.delete(self.log_N, index))
