"""Means over scored positions and ratios of their sums, with intervals, none of which comes from too few clusters.

Fewer than six clusters (documents, or windows where documents are fewer) leave no interval here. Parts are ranked and
named by theirs, shares are promised by theirs, and Student's t on a handful of windows has digits that no other handful
would repeat.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from app.contracts.report import Mean
from workers.distributions.intervals import FEWEST_CLUSTERS, Clusters, ratio_intervals
from workers.distributions.token_values import Positions
from workers.measuring.summary import as_mean

Array = NDArray[np.float64]
Support = tuple[float, float]
# The values that nats of a divergence, and shares of them, can have; those that nats gained can be of the whole's.
POSITIVE: Support = (0.0, math.inf)
GAINED: Support = (-math.inf, 1.0)


def mean_of(column: Array, where: Positions, *, seed: int, support: Support = (-math.inf, math.inf)) -> Mean:
    """Mean of the finite values of a column, its interval cut to `support`."""
    finite = np.isfinite(column)
    if not finite.any():
        return Mean(mean=None, ci=None)
    clusters = Clusters.at(where.select(finite))
    found = as_mean(clusters.means([column[finite]], seed=seed)[0], support)
    return Mean(mean=found.mean, ci=None) if len(clusters) < FEWEST_CLUSTERS else found


def ratio(
    top: ArrayLike, bottom: ArrayLike, where: Positions, *, seed: int, support: Support = POSITIVE
) -> Mean | None:
    """Σ top / Σ bottom over positions, paired, with a clustered 95 % interval cut to `support`, never past the ratio;
    None if the bottom is not positive.

    Positions where either is not finite are left out; so are documents in which the bottom is exactly 0.
    """
    numerator, denominator = np.asarray(top, dtype=np.float64), np.asarray(bottom, dtype=np.float64)
    finite = np.isfinite(numerator) & np.isfinite(denominator)
    if not finite.any():
        return None
    clusters = Clusters.at(where.select(finite))
    sums, _ = clusters.sums([column[finite] for column in (numerator, denominator)])
    used = sums[1] > 0
    if not used.any():
        return None
    domain_N = None if clusters.domain_N is None else clusters.domain_N[used]
    means, _, lows, highs = ratio_intervals(sums[:1, used], sums[1:, used], domain_N=domain_N, seed=seed)
    mean, low, high = float(means[0]), float(lows[0]), float(highs[0])
    if int(used.sum()) < FEWEST_CLUSTERS:
        return Mean(mean=mean, ci=None)
    return Mean(mean=mean, ci=(min(max(low, support[0]), mean), max(min(high, support[1]), mean)), clusters=clusters.by)
