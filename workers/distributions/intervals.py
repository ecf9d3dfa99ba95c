"""95 % intervals of means over tokens, clustered: neighbouring tokens share a context and are not independent.

The mean over tokens of documents of unequal length is a ratio, r = Σ y_i / Σ n_i. Here y_i is the sum and n_i the
number of tokens of cluster i. Its standard error comes by linearization, with residuals e_i = y_i - r n_i and N
clusters:

    se² = N/(N-1) · Σ e_i² / (Σ n_i)²                      (Cochran, Sampling Techniques, §6.3, §9A)

The interval is the studentized bootstrap (bootstrap-t; Efron & Tibshirani, An Introduction to the Bootstrap, §12.5).
Whole clusters are drawn with replacement, each draw gives t* = (r* - r)/se*, and the interval is
[r - t*(1-α/2) se, r - t*(α/2) se]. Divergences are skewed, and unlike the percentile bootstrap this one follows the
skew.

Two additions (coverage: `tests.bench.intervals`, docs/results/statistics.md):

- With few, skewed clusters even bootstrap-t covers too little: its error is of order 1/N, and the sample's own tail is
  shorter than the population's. So α = 5 % is lowered by min(2 %, 0.3 γ²/N), γ the skewness of the residuals. The
  change vanishes for symmetric residuals and as N grows. Any other α, as p-values need one (`significance`), is lowered
  by the same share of itself.
- |t*| is capped at 6. Where one document holds all there is (one disagreement among thousands of tokens), draws without
  that document have se* = 0 and t* infinite. With the cap the upper limit is 7 times the mean, where the exact Poisson
  limit of a single event is 5.6 times.

Domains are part of the design: the next text has them in the same shares. So documents are drawn within theirs, and
what varies is the residual less its domain's mean. With N_h documents of domain h (Cochran, §6.11, combined ratio):

    se² = Σ_h N_h/(N_h-1) · Σ_i (e_hi - ē_h)² / (Σ n_i)²

A domain of one document cannot vary by itself. So domains of fewer than three, from the smallest on, are drawn
together with the next larger one; what they differ by then counts as spread.

The clusters are the documents; where fewer than six are at hand they are the windows, and the interval then speaks of
these documents only. Two to five clusters get Student's t, one gets no interval. Draws go by index, in an order of the
clusters that their values alone decide (`cluster_order`): the order in which they came does not matter.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from workers.distributions.token_values import Positions

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
ClusteredBy = Literal["documents", "windows"]

CONFIDENCE = 0.95
RESAMPLES = 10_000
FEWEST_CLUSTERS = 6
# Two documents of a domain say too little of how it varies: 88 % of intervals cover with 30 of one and 2 of another.
FEWEST_OF_DOMAIN = 3
T_LIMIT = 6.0
_SKEWNESS_FACTOR = 0.3
_SKEWNESS_LIMIT = 0.02
# Sums of float64 are not equal to the last digit; a spread below this share of the mean size is none.
ROUNDING = 1e-13
# Elements of a block of resampling counts: bounds memory with thousands of documents.
_BLOCK = 1 << 20

DESCRIPTION = (
    "95 % studentized bootstrap over clusters for the ratio of sums to tokens, standard error by linearization, "
    f"{RESAMPLES} resamples, wider for skewed values. Clusters are documents, or windows if fewer than "
    f"{FEWEST_CLUSTERS} documents are at hand. Documents are drawn within their domains. "
    f"Student's t for 2 to {FEWEST_CLUSTERS - 1} clusters, none for one"
)


@dataclass(frozen=True)
class Estimate:
    """A mean over `tokens` values with standard error and 95 % interval, both None for a single cluster."""

    mean: float
    standard_error: float | None
    interval: tuple[float, float] | None
    tokens: int
    clusters: int
    by: ClusteredBy

    def within(self, low: float, high: float) -> Self:
        """The interval cut to the values that the quantity can take, never past the mean."""
        if self.interval is None:
            return self
        return replace(
            self,
            interval=(min(max(self.interval[0], low), self.mean), max(min(self.interval[1], high), self.mean)),
        )

    def mapped(self, rising: Callable[[float], float]) -> Self:
        """The estimate of a strictly rising function of the mean; it has no standard error of its own.

        A studentized interval of the mean maps to one of its image, with the same coverage.
        """
        interval = None if self.interval is None else (rising(self.interval[0]), rising(self.interval[1]))
        return replace(self, mean=rising(self.mean), standard_error=None, interval=interval)


class Clusters:
    """Which cluster each token belongs to, and the intervals that follow from it."""

    def __init__(self, labels: ArrayLike, by: ClusteredBy, domain: ArrayLike | None = None) -> None:
        _, first, inverse, counts = np.unique(
            np.asarray(labels), return_index=True, return_inverse=True, return_counts=True
        )
        if inverse.ndim != 1:
            raise ValueError("one label a token is needed")
        self.by = by
        self.domain_N = None if domain is None else np.asarray(domain)[first]
        self.counts: Array = counts.astype(np.float64)
        self._cluster_of_token: Indices = inverse

    @classmethod
    def at(cls, where: Positions) -> Self:
        """Of these positions' documents, drawn within their domains, or windows."""
        return cls.of(where.document, where.window, where.domain)

    @classmethod
    def of(cls, document: ArrayLike, window: ArrayLike, domain: ArrayLike | None = None) -> Self:
        """Clusters of tokens of which document and window indices are given: windows where documents are too few.

        `domain` is a label for each token: documents, not windows, are drawn within theirs. None: of one domain.
        """
        if np.unique(np.asarray(document)).size >= FEWEST_CLUSTERS:
            return cls(document, "documents", domain)
        return cls(window, "windows")

    def __len__(self) -> int:
        return self.counts.size

    def means(self, values: Sequence[ArrayLike], *, seed: int = 0, resamples: int = RESAMPLES) -> list[Estimate]:
        """Estimates of the means of several quantities, each an array of one finite value a token.

        All share the same draws of clusters. The order of clusters and of tokens does not matter. Raises ValueError
        for no tokens, a length that does not fit, or a value that is not finite.
        """
        tokens, clusters = self._cluster_of_token.size, len(self)
        sums_QN, sizes_Q = self.sums(values)
        if not values:
            return []
        mean_Q, error_Q, low_Q, high_Q = ratio_intervals(
            sums_QN, self.counts[None], sizes_Q, self.domain_N, seed=seed, resamples=resamples
        )
        return [
            Estimate(
                mean=float(mean_Q[row]),
                standard_error=None if clusters < 2 else float(error_Q[row]),
                interval=None if clusters < 2 else (float(low_Q[row]), float(high_Q[row])),
                tokens=tokens,
                clusters=clusters,
                by=self.by,
            )
            for row in range(len(values))
        ]

    def sums(self, values: Sequence[ArrayLike]) -> tuple[Array, Array]:
        """Sums by cluster (Q, N) and mean absolute values (Q,) of quantities as `means` takes them; raises as it."""
        tokens, clusters = self._cluster_of_token.size, len(self)
        if tokens == 0:
            raise ValueError("a mean of no tokens does not exist")
        sums_QN = np.empty((len(values), clusters))
        sizes_Q = np.empty(len(values))
        for row, quantity in enumerate(values):
            column = np.asarray(quantity, dtype=np.float64)
            if column.shape != (tokens,):
                raise ValueError(f"values have shape {column.shape}, ({tokens},) is needed")
            if not np.isfinite(column).all():
                raise ValueError("a value is not finite")
            sums_QN[row] = np.bincount(self._cluster_of_token, weights=column, minlength=clusters)
            sizes_Q[row] = np.abs(column).mean()
        return sums_QN, sizes_Q


@dataclass(frozen=True)
class Ratios:
    """Q ratios over N clusters, ordered by `cluster_order`: what intervals and p-values have in common.

    `mean_Q` is in the values' own unit. `error_Q` (standard errors, 0 if nothing varies) and `residuals_QN` are in
    units of `unit_Q`, the values' size, so that squares and cubes neither overflow nor vanish. With N = 1 the standard
    error is 0 and means nothing. `counts_QN` are of shape (1, N) where all ratios share them. `strata` are the clusters
    that are drawn together; the residuals of each sum to 0.
    """

    mean_Q: Array
    unit_Q: Array
    error_Q: Array
    residuals_QN: Array
    counts_QN: Array
    strata: Sequence[Indices]

    @classmethod
    def of(
        cls, sums_QN: Array, counts_QN: Array, sizes_Q: Array | None = None, domain_N: NDArray[Any] | None = None
    ) -> Self:
        """From the clusters' sums and positive token counts; `sizes_Q` and `domain_N` as in `ratio_intervals`."""
        order = cluster_order(sums_QN, counts_QN)
        sums_QN, counts_QN = sums_QN[:, order], counts_QN[:, order]
        strata = strata_of(np.zeros(order.size) if domain_N is None else domain_N[order])
        totals_Q = counts_QN.sum(axis=1)
        mean_Q: Array = sums_QN.sum(axis=1) / totals_Q
        sizes_Q = np.abs(sums_QN).sum(axis=1) / totals_Q if sizes_Q is None else sizes_Q
        unit_Q = np.where(sizes_Q > 0, sizes_Q, 1.0)
        residuals_QN = (sums_QN - mean_Q[:, None] * counts_QN) / unit_Q[:, None]
        squares_Q = np.zeros(len(sums_QN))
        for members in strata:
            residuals_QN[:, members] -= residuals_QN[:, members].mean(axis=1, keepdims=True)
            squares_Q += members.size / max(members.size - 1, 1) * (residuals_QN[:, members] ** 2).sum(axis=1)
        error_Q = np.sqrt(squares_Q) / totals_Q
        error_Q = np.where(error_Q > ROUNDING, error_Q, 0.0)
        # Values that cancel in every cluster leave what rounding leaves: a mean of 0, on no side of it.
        mean_Q = np.where((error_Q == 0) & (np.abs(mean_Q) <= ROUNDING * unit_Q), 0.0, mean_Q)
        return cls(mean_Q, unit_Q, error_Q, residuals_QN, counts_QN, strata)

    def __len__(self) -> int:
        return len(self.mean_Q)

    @property
    def clusters(self) -> int:
        """N."""
        return int(self.residuals_QN.shape[1])

    def level_kept(self) -> Array:
        """(Q,): the share of α that is left when the level is changed with the skewness."""
        squares_Q = (self.residuals_QN**2).sum(axis=1)
        skewness_Q = (self.residuals_QN**3).sum(axis=1) / np.where(self.error_Q > 0, squares_Q, 1.0) ** 1.5
        return np.asarray(1 - np.minimum(_SKEWNESS_LIMIT, _SKEWNESS_FACTOR * skewness_Q**2) / (1 - CONFIDENCE))

    def resampled_t(self, *, seed: int, resamples: int) -> Array:
        """t* of each draw of clusters, sorted along the draws: (B, Q), within ±T_LIMIT."""
        return _resampled_t(self.residuals_QN, self.counts_QN, self.strata, seed=seed, resamples=resamples)


def strata_of(domain_N: NDArray[Any]) -> list[Indices]:
    """The clusters of each domain. Domains of too few clusters are one stratum together; if it has too few, too, the
    smallest other domain joins it. Small ones are not grouped by their values: similar ones would show no spread."""
    names = np.unique(domain_N, return_inverse=True)[1]
    domains = [np.flatnonzero(names == name) for name in range(names.max() + 1)]
    domains.sort(key=lambda members: (members.size, members[0]))
    small = [members for members in domains if members.size < FEWEST_OF_DOMAIN]
    large = domains[len(small) :]
    if small and large and sum(map(len, small)) < FEWEST_OF_DOMAIN:
        small.append(large.pop(0))
    return ([np.sort(np.concatenate(small))] if small else []) + large


def cluster_order(sums_QN: Array, counts_QN: Array) -> Indices:
    """An order of the clusters that their counts and sums decide: (N,). Those that it does not tell apart are equal."""
    return np.asarray(np.lexsort((*sums_QN[::-1], *counts_QN[::-1])))


def ratio_intervals(
    sums_QN: Array,
    counts_QN: Array,
    sizes_Q: Array | None = None,
    domain_N: NDArray[Any] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[Array, Array, Array, Array]:
    """Means, standard errors, lower and upper limits of Q ratios over N clusters each, whose order does not matter.

    `sums_QN` are the clusters' sums, `counts_QN` their positive token counts, of shape (1, N) where all share them.
    `sizes_Q` are the mean absolute values, by which rounding is distinguished from spread. `domain_N` are labels,
    within which clusters are drawn; None: of one domain. With N = 1 the standard error is 0 and means nothing."""
    ratios = Ratios.of(sums_QN, counts_QN, sizes_Q, domain_N)
    clusters, error_Q = ratios.clusters, ratios.error_Q
    if clusters < FEWEST_CLUSTERS:
        quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, clusters - 1)) if clusters > 1 else 0.0
        low_Q, high_Q = -quantile * error_Q, quantile * error_Q
    else:
        t_BQ = ratios.resampled_t(seed=seed, resamples=resamples)
        tail_Q = (1 - CONFIDENCE) / 2 * ratios.level_kept()
        low_Q = -_quantiles(t_BQ, 1 - tail_Q) * error_Q
        high_Q = -_quantiles(t_BQ, tail_Q) * error_Q
    low_Q = ratios.mean_Q + np.minimum(low_Q, 0.0) * ratios.unit_Q
    high_Q = ratios.mean_Q + np.maximum(high_Q, 0.0) * ratios.unit_Q
    return ratios.mean_Q, error_Q * ratios.unit_Q, low_Q, high_Q


def _resampled_t(
    residuals_QN: Array, counts_QN: Array, strata: Sequence[Indices], *, seed: int, resamples: int
) -> Array:
    """As `Ratios.resampled_t`.

    A draw is a row of counts that say how often each cluster came, so that every sum over a draw is a matrix product.
    Around the drawn ratio r* = r + d the residuals are e_i - d n_i.
    """
    clusters = counts_QN.shape[1]
    rng = np.random.default_rng(seed)
    t_BQ = np.empty((resamples, residuals_QN.shape[0]))
    rows = max(1, _BLOCK // clusters)
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        drawn = [_draw(rng, stop - start, members.size) for members in strata]
        first = [part @ residuals_QN[:, members].T for part, members in zip(drawn, strata, strict=True)]
        tokens = [part @ counts_QN[:, members].T for part, members in zip(drawn, strata, strict=True)]
        totals_BQ = sum(tokens, np.zeros(()))
        d_BQ = sum(first, np.zeros(())) / totals_BQ
        squares_BQ = np.zeros_like(d_BQ)
        for part_BN, first_BQ, tokens_BQ, members in zip(drawn, first, tokens, strata, strict=True):
            residuals_NQ, counts_NQ = residuals_QN[:, members].T, counts_QN[:, members].T
            second_BQ = part_BN @ residuals_NQ**2
            second_BQ += d_BQ * (d_BQ * (part_BN @ counts_NQ**2) - 2 * (part_BN @ (residuals_NQ * counts_NQ)))
            second_BQ -= (first_BQ - d_BQ * tokens_BQ) ** 2 / members.size
            squares_BQ += members.size / max(members.size - 1, 1) * second_BQ
        errors_BQ = np.sqrt(np.maximum(squares_BQ, 0.0)) / totals_BQ
        # |d| = T_LIMIT · se* at least, where it is not se* that is smaller: no division by zero, and the cap at once.
        bound_BQ = np.maximum(errors_BQ, np.abs(d_BQ) / T_LIMIT)
        np.divide(d_BQ, bound_BQ, out=t_BQ[start:stop], where=bound_BQ > 0)
        t_BQ[start:stop][bound_BQ == 0] = 0.0
    t_BQ.sort(axis=0)
    return t_BQ


def _draw(rng: np.random.Generator, draws: int, clusters: int) -> Array:
    """How often each cluster comes in each draw of as many clusters as there are: (draws, clusters)."""
    drawn: NDArray[np.int64] = rng.integers(0, clusters, (draws, clusters))
    drawn += np.arange(draws)[:, None] * clusters
    return np.bincount(drawn.ravel(), minlength=draws * clusters).reshape(draws, clusters).astype(np.float64)


def _quantiles(sorted_BQ: Array, levels_Q: Array) -> NDArray[Any]:
    """The quantile of each column at its own level, linear between neighbours."""
    place_Q = levels_Q * (len(sorted_BQ) - 1)
    below_Q = np.floor(place_Q).astype(np.intp)
    above_Q = np.minimum(below_Q + 1, len(sorted_BQ) - 1)
    columns = np.arange(sorted_BQ.shape[1])
    part_Q = place_Q - below_Q
    return np.asarray((1 - part_Q) * sorted_BQ[below_Q, columns] + part_Q * sorted_BQ[above_Q, columns])
