"""Right answers of two models, item by item: what every paired statistic starts from.

The four counts are those of McNemar's table. Rows of a pair are (n,) booleans.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Interval = tuple[float, float]


@dataclass(frozen=True)
class Pairs:
    """Who answers rightly: both, neither, the reference alone (`harmful` flips), the candidate alone (`helpful`)."""

    both_right: int
    both_wrong: int
    harmful: int
    helpful: int

    @classmethod
    def of(cls, reference: ArrayLike, candidate: ArrayLike) -> Pairs:
        """From one boolean an item. Raises ValueError if lengths differ or there is no item."""
        first: NDArray[np.bool_] = np.asarray(reference, dtype=np.bool_)
        second: NDArray[np.bool_] = np.asarray(candidate, dtype=np.bool_)
        if first.shape != second.shape or first.ndim != 1 or first.size == 0:
            raise ValueError(f"answers of shapes {first.shape} and {second.shape} are no pairs")
        return cls(
            both_right=int(np.count_nonzero(first & second)),
            both_wrong=int(np.count_nonzero(~first & ~second)),
            harmful=int(np.count_nonzero(first & ~second)),
            helpful=int(np.count_nonzero(~first & second)),
        )

    @property
    def items(self) -> int:
        """How many items."""
        return self.both_right + self.both_wrong + self.harmful + self.helpful

    @property
    def flips(self) -> int:
        """Items that one of the two answers rightly."""
        return self.harmful + self.helpful

    @property
    def reference(self) -> float:
        """Accuracy of the reference."""
        return (self.both_right + self.harmful) / self.items

    @property
    def candidate(self) -> float:
        """Accuracy of the candidate."""
        return (self.both_right + self.helpful) / self.items

    @property
    def difference(self) -> float:
        """Accuracy of the candidate − accuracy of the reference."""
        return (self.helpful - self.harmful) / self.items


def wilson(successes: int, items: int, *, level: float = 0.95) -> Interval:
    """Score interval of a share (Wilson, JASA 22 (1927) 209–212)."""
    z = float(stats.norm.ppf((1 + level) / 2))
    share = successes / items
    middle = share + z * z / (2 * items)
    half = z * math.sqrt(share * (1 - share) / items + z * z / (4 * items * items))
    scale = 1 + z * z / items
    low = 0.0 if successes == 0 else (middle - half) / scale
    high = 1.0 if successes == items else (middle + half) / scale
    return max(0.0, low), min(1.0, high)
