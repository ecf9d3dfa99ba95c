"""Whether a mean differs from 0, and what is left of that where many are asked at once.

The p-value is the one that belongs to the intervals of `workers.distributions.intervals`: with t = r/se and t* the
studentized means of resampled clusters around r, p is twice the smaller of the shares of t* at or beyond t on either
side (Davison & Hinkley, Bootstrap Methods and their Application, §4.4.1), each with the sample itself counted, so that
it is never 0. Two to five clusters get Student's t; one gets no p-value.

Holm's correction (Scand. J. Statist. 6, 1979) bounds the chance of any false difference among all that were asked,
whatever their dependence.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from workers.distributions.intervals import FEWEST_CLUSTERS, RESAMPLES, ROUNDING, Array, _resampled_t

LEVEL = 0.05
# The least p-value of so many draws: what is corrected for more than LEVEL / LEAST_P differences is never found.
LEAST_P = 2 / (RESAMPLES + 1)


def p_values(
    values: Sequence[ArrayLike], cluster_T: ArrayLike, *, seed: int = 0, resamples: int = RESAMPLES
) -> list[float | None]:
    """Two-sided p-values of mean = 0 for several quantities, each an array of one finite value a token.

    `cluster_T` is each token's cluster, such as its document. Raises ValueError for no tokens, a length that does not
    fit, or a value that is not finite.
    """
    _, inverse_T, counts_N = np.unique(np.asarray(cluster_T), return_inverse=True, return_counts=True)
    if inverse_T.size == 0:
        raise ValueError("a mean of no tokens does not exist")
    if not values:
        return []
    columns = [np.asarray(column, dtype=np.float64) for column in values]
    for column in columns:
        if column.shape != inverse_T.shape:
            raise ValueError(f"values have shape {column.shape}, {inverse_T.shape} is needed")
        if not np.isfinite(column).all():
            raise ValueError("a value is not finite")
    sums_QN = np.empty((len(columns), counts_N.size))
    for row, column in enumerate(columns):
        sums_QN[row] = np.bincount(inverse_T, weights=column, minlength=counts_N.size)
    sizes_Q = np.array([np.abs(column).mean() for column in columns])
    return p_values_of_sums(sums_QN, counts_N, sizes_Q, seed=seed, resamples=resamples)


def p_values_of_sums(
    sums_QN: Array,
    counts_N: ArrayLike,
    sizes_Q: Array | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[float | None]:
    """The same from sums and token counts of N clusters; `sizes_Q` are the mean absolute values, by which rounding is
    told from spread."""
    sizes_N: Array = np.asarray(counts_N, dtype=np.float64)
    clusters = sizes_N.size
    if clusters < 2:
        return [None] * len(sums_QN)
    if sizes_Q is None:
        sizes_Q = np.abs(sums_QN).sum(axis=1) / sizes_N.sum()
    t_Q, residuals_QN = _studentized(sums_QN, sizes_N, sizes_Q)
    if clusters < FEWEST_CLUSTERS:
        return [float(p) for p in 2 * stats.t.sf(np.abs(t_Q), clusters - 1)]
    t_BQ = _resampled_t(residuals_QN, sizes_N[None, :], seed=seed, resamples=resamples)
    above_Q = 1 + (t_BQ >= t_Q).sum(axis=0)
    below_Q = 1 + (t_BQ <= t_Q).sum(axis=0)
    found = np.minimum(1.0, 2 * np.minimum(above_Q, below_Q) / (resamples + 1))
    return [float(p) for p in np.where(t_Q == 0, 1.0, found)]


def _studentized(sums_QN: Array, counts_N: Array, sizes_Q: Array) -> tuple[Array, Array]:
    """t of each mean (infinite where nothing varies and the mean is not 0), and the clusters' residuals."""
    clusters, total = counts_N.size, counts_N.sum()
    unit_Q = np.where(sizes_Q > 0, sizes_Q, 1.0)
    mean_Q = sums_QN.sum(axis=1) / total / unit_Q
    residuals_QN = sums_QN / unit_Q[:, None] - mean_Q[:, None] * counts_N
    error_Q = np.sqrt(clusters / (clusters - 1) * (residuals_QN**2).sum(axis=1)) / total
    varies_Q = error_Q > ROUNDING
    constant_Q = np.where(np.abs(mean_Q) > ROUNDING, np.copysign(np.inf, mean_Q), 0.0)
    t_Q = np.divide(mean_Q, error_Q, out=constant_Q, where=varies_Q)
    return t_Q, residuals_QN


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Adjusted p-values: one below α is a difference at that level among all together. None stays None, uncounted."""
    known = [(value, index) for index, value in enumerate(p) if value is not None]
    adjusted: list[float | None] = [None] * len(p)
    largest = 0.0
    for rank, (value, index) in enumerate(sorted(known)):
        largest = max(largest, min(1.0, (len(known) - rank) * value))
        adjusted[index] = largest
    return adjusted


def cluster_labels(document_T: ArrayLike, window_T: ArrayLike) -> NDArray[np.intp]:
    """The clusters that intervals use: documents, or windows where documents are fewer than six."""
    documents = np.asarray(document_T)
    chosen = documents if np.unique(documents).size >= FEWEST_CLUSTERS else np.asarray(window_T)
    return np.asarray(np.unique(chosen, return_inverse=True)[1])
