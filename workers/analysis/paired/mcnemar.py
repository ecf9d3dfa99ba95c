"""Exact tests of flips: are both directions equally likely (McNemar), do items of a kind flip more often (Fisher)?"""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from workers.analysis.paired.pairs import Pairs


def exact(pairs: Pairs) -> float:
    """Two-sided p: of the flips, each is harmful with probability ½. 1 if there is no flip.

    Of clustered items, helpful − harmful flips of each cluster have either sign with probability ½. This is exact;
    Durkalski et al., Statistics in Medicine 22 (2003) 2417–2428, take the normal distribution.
    """
    if pairs.clusters is None:
        return float(_p_values(pairs.flips)[pairs.harmful])
    leads = [lead for _, lead in pairs.clusters]
    above: NDArray[np.float64] = np.ones(1)  # by the sum of those that are helpful
    for size, count in Counter(abs(lead) for lead in leads if lead).items():
        part = np.zeros(size * count + 1)
        part[::size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        above = np.convolve(above, part).astype(np.float64)
    found = sum(lead for lead in leads if lead > 0)
    return float(min(1.0, 2 * min(above[: found + 1].sum(), above[found:].sum())))


@lru_cache(maxsize=4096)
def _p_values(flips: int) -> NDArray[np.float64]:
    """By number of harmful flips, 0 to `flips`: twice the smaller tail, at most 1."""
    low = stats.binom.cdf(np.arange(flips + 1), flips, 0.5)
    smaller = np.minimum(low, low[::-1])  # P(X ≥ k) = P(X ≤ flips − k)
    return np.asarray(np.minimum(1.0, 2 * smaller))


def power(items: int, flip_rate: float, difference: float, *, level: float = 0.05) -> float:
    """Probability that the exact test rejects at `level`: summed over the number of flips m ~ Binomial(n, ψ), of which
    harmful ones are Binomial(m, (ψ + |δ|) / 2ψ)."""
    if not 0 < flip_rate <= 1 or abs(difference) > flip_rate:
        raise ValueError(f"a difference of {difference} needs a flip rate of as much, not {flip_rate}")
    share = (flip_rate + abs(difference)) / (2 * flip_rate)
    low = int(stats.binom.ppf(1e-9, items, flip_rate))
    high = int(stats.binom.ppf(1 - 1e-9, items, flip_rate))
    flips = np.arange(low, high + 1)
    # Most harmful flips of the lower tail that are rejected; by symmetry the upper tail begins at flips − that.
    edge = stats.binom.ppf(level / 2, flips, 0.5)
    edge = np.where(2 * stats.binom.cdf(edge, flips, 0.5) <= level, edge, edge - 1)
    rejected = stats.binom.cdf(edge, flips, share) + stats.binom.sf(flips - edge - 1, flips, share)
    rejected = np.where(edge < 0, 0.0, rejected)
    return float(np.sum(stats.binom.pmf(flips, items, flip_rate) * rejected))


def detectable(items: int, flip_rate: float, *, level: float = 0.05, wanted: float = 0.8) -> float | None:
    """Smallest |difference| in accuracy that the exact test shows with probability `wanted`, to 1e-4; None if not
    even a difference as large as the flip rate would be shown."""
    if flip_rate <= 0 or power(items, flip_rate, flip_rate, level=level) < wanted:
        return None
    low, high = 0.0, flip_rate
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if power(items, flip_rate, middle, level=level) >= wanted else (middle, high)
    return high


def fisher(flips: int, items: int, other_flips: int, other_items: int) -> float:
    """Two-sided p that items of a kind and the others flip at the same rate: all tables with these margins that are no
    likelier than this one.

    Raises ValueError if either side has no item, or more flips than items.
    """
    if not 0 <= flips <= items or not 0 <= other_flips <= other_items or not items or not other_items:
        raise ValueError(f"{flips} of {items} and {other_flips} of {other_items} items are no two shares")
    table = np.asarray([[flips, items - flips], [other_flips, other_items - other_flips]])
    return min(1.0, float(stats.fisher_exact(table).pvalue))
