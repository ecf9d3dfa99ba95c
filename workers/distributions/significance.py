"""Whether a mean differs from 0, and what is left of that where many are asked at once.

The p-value is the one that belongs to the intervals of `workers.distributions.intervals`. It is the level α at which
the interval of confidence 1 - α just touches 0 (Davison & Hinkley, Bootstrap Methods and their Application, §5.5). That
interval comes from the same draws, with its change of level for skewness. The p-value is below 5 % exactly where the 95
% interval leaves 0 out. So many draws tell no tail thinner than one of them: p is never 0 with six clusters or more.
Two to five clusters get Student's t, as their intervals do; one gets no p-value.

Holm's correction (Scand. J. Statist. 6, 1979) bounds the chance of any false difference among all that were asked,
whatever their dependence.
"""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from workers.distributions.intervals import FEWEST_CLUSTERS, RESAMPLES, Array, Clusters, Ratios

LEVEL = 0.05
# The least p-value of so many draws: what is corrected for more than LEVEL / LEAST_P differences is never found.
LEAST_P = 2 / (RESAMPLES + 1)


def p_values(
    values: Sequence[ArrayLike], clusters: Clusters, *, seed: int = 0, resamples: int = RESAMPLES
) -> list[float | None]:
    """Two-sided p-values of mean = 0 for several quantities, each an array of one finite value a token.

    Given together, as for `Clusters.means`, with the same seed, they belong to the intervals that those give. Raises
    as those do.
    """
    sums_QN, sizes_Q = clusters.sums(values)
    if not values:
        return []
    return p_values_of_sums(sums_QN, clusters.counts, sizes_Q, clusters.domain_N, seed=seed, resamples=resamples)


def p_values_of_sums(
    sums_QN: Array,
    counts_N: ArrayLike,
    sizes_Q: Array | None = None,
    domain_N: NDArray[Any] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[float | None]:
    """The same from sums and token counts of N clusters; `sizes_Q` and `domain_N` as for `ratio_intervals`."""
    ratios = Ratios.of(sums_QN, np.asarray(counts_N, dtype=np.float64)[None], sizes_Q, domain_N)
    if ratios.clusters < 2:
        return [None] * len(ratios)
    # Infinite where nothing varies and the mean is not 0.
    certain_Q = np.where(ratios.mean_Q == 0, 0.0, np.copysign(np.inf, ratios.mean_Q))
    t_Q = np.divide(ratios.mean_Q / ratios.unit_Q, ratios.error_Q, out=certain_Q, where=ratios.error_Q > 0)
    if ratios.clusters < FEWEST_CLUSTERS:
        return [float(p) for p in 2 * stats.t.sf(np.abs(t_Q), ratios.clusters - 1)]
    t_BQ = ratios.resampled_t(seed=seed, resamples=resamples)
    tails = [_tail_beyond(column_B, float(t)) for column_B, t in zip(t_BQ.T, t_Q, strict=True)]
    level_Q = 2 * np.maximum(tails, 1 / (resamples + 1)) / ratios.level_kept()
    return [float(p) for p in np.where(t_Q == 0, 1.0, np.minimum(level_Q, 1.0))]


def _tail_beyond(sorted_B: Array, t: float) -> float:
    """The share of t* beyond t, away from 0: 1 less the level whose quantile, linear between neighbours, is |t|."""
    away_B = sorted_B if t > 0 else -sorted_B[::-1]
    below = int(np.searchsorted(away_B, abs(t)))
    if below in {0, len(away_B)}:
        return 0.0 if below else 1.0
    low, high = away_B[below - 1], away_B[below]
    return float(1 - (below - 1 + (abs(t) - low) / (high - low)) / (len(away_B) - 1))


@overload
def holm(p: Sequence[float]) -> list[float]: ...
@overload
def holm(p: Sequence[float | None]) -> list[float | None]: ...
def holm(p: Sequence[float | None]) -> list[Any]:
    """Adjusted p-values: one below α is a difference at that level among all together. None stays None, uncounted."""
    known = sorted((value, index) for index, value in enumerate(p) if value is not None)
    adjusted, largest = list(p), 0.0
    for rank, (value, index) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * value))
        adjusted[index] = largest
    return adjusted
