"""Sums over the windows of each document, so that every mean and ratio has an interval clustered by document.

Names: N windows, K clusters, Q quantities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from app.contracts.report import Mean
from app.kinds.attribute.blocks import Measured
from workers.distributions.intervals import FEWEST_CLUSTERS, RESAMPLES, ClusteredBy, ratio_intervals
from workers.surgery.callbacks import CheckCancelled, never_cancelled

Array = NDArray[np.float64]
# Values that a divergence can have.
POSITIVE: Final = (0.0, np.inf)
# Quantities whose resampling is in memory at once.
_BLOCK = 64


@dataclass(frozen=True)
class Clusters:
    """Which cluster each window belongs to: its document, or itself where fewer than six documents are at hand."""

    of_window_N: NDArray[np.intp]
    by: ClusteredBy
    count: int

    @classmethod
    def of(cls, document_N: ArrayLike) -> Clusters:
        """From the document index of each window."""
        labels, inverse = np.unique(np.asarray(document_N), return_inverse=True)
        if labels.size >= FEWEST_CLUSTERS:
            return cls(inverse.astype(np.intp), "documents", int(labels.size))
        return cls(np.arange(inverse.size, dtype=np.intp), "windows", int(inverse.size))


@dataclass
class Sums:
    """`top` (K, *shape) and `bottom` (K, *shape): a ratio Σ top / Σ bottom for each element of `shape`."""

    clusters: Clusters
    shape: tuple[int, ...]
    top: Array = field(init=False)
    bottom: Array = field(init=False)

    def __post_init__(self) -> None:
        self.top = np.zeros((self.clusters.count, *self.shape))
        self.bottom = np.zeros((self.clusters.count, *self.shape))

    def add(self, start: int, top_N: Any, bottom_N: Any, *, at: tuple[int, ...] | int | None = None) -> None:
        """Sums of windows from `start` on, one a window: (n, *shape), or (n, *shape[1:]…) for the element `at`."""
        top, bottom = np.asarray(top_N, dtype=np.float64), np.asarray(bottom_N, dtype=np.float64)
        bottom = np.broadcast_to(bottom.reshape(bottom.shape + (1,) * (top.ndim - bottom.ndim)), top.shape)
        cluster = self.clusters.of_window_N[start : start + len(top)]
        where: Any = (cluster,) if at is None else (cluster, *(at if isinstance(at, tuple) else (at,)))
        np.add.at(self.top, where, top)
        np.add.at(self.bottom, where, bottom)

    def values(self) -> Array:
        """(*shape): the ratios; NaN if the bottom is 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Array = self.top.sum(0) / self.bottom.sum(0)
        return found

    def means(
        self,
        *,
        seed: int,
        rising: Callable[[float], float] | None = None,
        support: tuple[float, float] = (-np.inf, np.inf),
        resamples: int = RESAMPLES,
        check_cancelled: CheckCancelled = never_cancelled,
    ) -> NDArray[Any]:
        """(*shape) of `Mean`: the ratios (or a rising function of each) with 95 % intervals, cut to `support`. Fewer
        than six clusters have no interval. The order of documents does not matter. Raises
        what `check_cancelled` raises, which is asked before every few of them."""
        top, bottom = (part.reshape(self.clusters.count, -1).T for part in (self.top, self.bottom))
        found = np.empty(top.shape[0], dtype=object)
        for first in range(0, top.shape[0], _BLOCK):
            check_cancelled()
            rows = slice(first, first + _BLOCK)
            found[rows] = _means(top[rows], bottom[rows], self.clusters, rising, support, seed, resamples)
        return found.reshape(self.shape)

    def mean(self, **options: Any) -> Mean:
        """The one of an empty shape."""
        found: Mean = self.means(**options).reshape(-1)[0]
        return found


def difference(first: Sums, second: Sums) -> Sums:
    """Σ (top of the first − top of the second) / Σ bottom, paired: both over the same positions."""
    found = Sums(first.clusters, first.shape)
    found.top, found.bottom = first.top - second.top, first.bottom.copy()
    return found


def measured(tokens_NL: torch.Tensor, document_N: ArrayLike) -> Measured:
    """The text of these windows."""
    windows, length = tokens_NL.shape
    documents = int(np.unique(np.asarray(document_N)).size)
    return Measured(windows=windows, tokens=windows * length, documents=documents)


def _means(
    top_QK: Array,
    bottom_QK: Array,
    clusters: Clusters,
    rising: Callable[[float], float] | None,
    support: tuple[float, float],
    seed: int,
    draws: int,
) -> list[Mean]:
    # what is not finite somewhere has no mean, and no place in a resampling
    used_Q = (bottom_QK.sum(1) > 0) & np.isfinite(top_QK).all(1) & np.isfinite(bottom_QK).all(1)
    found = [Mean(mean=None, ci=None)] * len(top_QK)
    # a cluster without a position has no part in a ratio; the resampling wants every count positive
    for key in {tuple(row) for row in (bottom_QK > 0)[used_Q]}:
        kept_K = np.asarray(key, dtype=bool)
        rows = [row for row in np.flatnonzero(used_Q) if ((bottom_QK[row] > 0) == kept_K).all()]
        top, bottom = top_QK[rows][:, kept_K], bottom_QK[rows][:, kept_K]
        mean_Q, _, low_Q, high_Q = ratio_intervals(top, bottom, seed=seed, resamples=draws)
        for index, row in enumerate(rows):
            mean, low, high = float(mean_Q[index]), float(low_Q[index]), float(high_Q[index])
            values = [mean, min(max(low, support[0]), mean), max(min(high, support[1]), mean)]
            if rising is not None:
                values = [rising(value) for value in values]
            few = int(kept_K.sum()) < FEWEST_CLUSTERS
            found[row] = _mean(values, few=few, by=clusters.by)
    return found


def _mean(values: list[float], *, few: bool, by: ClusteredBy) -> Mean:
    if not np.isfinite(values[0]):
        return Mean(mean=None, ci=None)
    ci = None if few or not np.isfinite(values[1:]).all() else (values[1], values[2])
    return Mean(mean=values[0], ci=ci, clusters=None if ci is None else by)
