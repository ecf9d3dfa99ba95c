"""What is known of a quantity's mean from its sums by cluster: interval, p-value. Clusters are documents, or windows
where documents are fewer than six, as everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.contracts.report import Mean
from workers.distributions.intervals import FEWEST_CLUSTERS, ClusteredBy, Estimate, ratio_intervals
from workers.distributions.significance import p_values_of_sums
from workers.measuring.summary import as_mean

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Clustered:
    """Clusters of the scored tokens. `cluster_W` is each window's cluster, −1 if the window has no usable token."""

    cluster_W: NDArray[np.intp]
    counts_N: Array
    by: ClusteredBy

    @classmethod
    def of(cls, tokens_W: Sequence[int], document_W: NDArray[np.integer]) -> Clustered:
        """From the usable tokens of each window and its document. Raises ValueError if there is no token."""
        tokens = np.asarray(tokens_W, dtype=np.float64)
        there = tokens > 0
        if not there.any():
            raise ValueError("a mean of no tokens does not exist")
        documents = np.unique(document_W[there])
        by: ClusteredBy = "documents" if documents.size >= FEWEST_CLUSTERS else "windows"
        labels = document_W if by == "documents" else np.arange(len(tokens))
        cluster_W = np.full(len(tokens), -1, dtype=np.intp)
        names, cluster_W[there] = np.unique(labels[there], return_inverse=True)
        counts_N: Array = np.bincount(cluster_W[there], weights=tokens[there], minlength=names.size).astype(np.float64)
        return cls(cluster_W, counts_N, by)

    def sums(self, of_W: Sequence[float] | Array) -> Array:
        """Sums by cluster from sums by window: (N,)."""
        there = self.cluster_W >= 0
        values = np.asarray(of_W, dtype=np.float64)[there]
        return np.bincount(self.cluster_W[there], weights=values, minlength=self.counts_N.size).astype(np.float64)

    def estimates(self, sums_N: Sequence[Array], *, seed: int) -> list[Estimate]:
        """The mean over tokens of each quantity; all share the draws of clusters."""
        if not sums_N:
            return []
        mean_Q, error_Q, low_Q, high_Q = ratio_intervals(np.stack(sums_N), self.counts_N[None], seed=seed)
        alone = self.counts_N.size < 2
        return [
            Estimate(
                mean=float(mean_Q[row]),
                standard_error=None if alone else float(error_Q[row]),
                interval=None if alone else (float(low_Q[row]), float(high_Q[row])),
                tokens=int(self.counts_N.sum()),
                clusters=self.counts_N.size,
                by=self.by,
            )
            for row in range(len(sums_N))
        ]

    def means(self, sums_N: Sequence[Array], *, seed: int, low: float = -np.inf) -> list[Mean]:
        """The same as a report writes them, cut to values from `low` on."""
        return [as_mean(estimate, (low, np.inf)) for estimate in self.estimates(sums_N, seed=seed)]

    def p_values(self, sums_N: Sequence[Array], *, seed: int) -> list[float | None]:
        """Two-sided p-values of mean = 0, which belong to the intervals of `estimates` of the same sums and seed."""
        return p_values_of_sums(np.stack(sums_N), self.counts_N, seed=seed) if sums_N else []
