"""Right answers of two models, item by item: what every paired statistic starts from.

The four counts are those of McNemar's table. Rows of a pair are (n,) booleans. Items of one cluster, such as questions
on one passage, are not independent: what varies then is the cluster.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Interval = tuple[float, float]


@dataclass(frozen=True)
class Pairs:
    """Who answers rightly: both, neither, the reference alone (`harmful` flips), the candidate alone (`helpful`).

    `clusters`: items, and helpful − harmful flips of each cluster. None: items are independent.
    """

    both_right: int
    both_wrong: int
    harmful: int
    helpful: int
    clusters: tuple[tuple[int, int], ...] | None = None

    @classmethod
    def of(cls, reference: ArrayLike, candidate: ArrayLike, cluster: ArrayLike | None = None) -> Pairs:
        """From one boolean an item, and a label of its cluster. Raises ValueError if lengths differ or there is no
        item."""
        first: NDArray[np.bool_] = np.asarray(reference, dtype=np.bool_)
        second: NDArray[np.bool_] = np.asarray(candidate, dtype=np.bool_)
        if first.shape != second.shape or first.ndim != 1 or first.size == 0:
            raise ValueError(f"answers of shapes {first.shape} and {second.shape} are no pairs")
        return cls(
            both_right=int(np.count_nonzero(first & second)),
            both_wrong=int(np.count_nonzero(~first & ~second)),
            harmful=int(np.count_nonzero(first & ~second)),
            helpful=int(np.count_nonzero(~first & second)),
            clusters=None if cluster is None else _clusters(second.astype(int) - first, np.asarray(cluster)),
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

    @property
    def design(self) -> float:
        """The design effect: how many times as much the difference varies as that of so many independent items, 1 at
        least (Rao and Scott, Biometrics 48 (1992) 577–585). Infinite for a single cluster, which shows no spread."""
        if self.clusters is None:
            return 1.0
        count, mean = len(self.clusters), self.difference
        if count < 2:
            return math.inf
        alone = self.flips - self.items * mean**2
        together = sum((lead - items * mean) ** 2 for items, lead in self.clusters) * count / (count - 1)
        return max(1.0, together / alone) if alone > 0 else 1.0


def _clusters(lead_I: NDArray[np.int64], cluster_I: NDArray[Any]) -> tuple[tuple[int, int], ...]:
    if cluster_I.shape != lead_I.shape:
        raise ValueError(f"{cluster_I.size} clusters of {lead_I.size} items are no pairs")
    _, inverse_I, items_C = np.unique(cluster_I, return_inverse=True, return_counts=True)
    leads_C = np.bincount(inverse_I, weights=lead_I)
    return tuple((int(items), round(lead)) for items, lead in zip(items_C, leads_C, strict=True))


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
