"""The score test and interval for the difference of two paired shares, and equivalence by it.

Tango, Statistics in Medicine 17 (1998) 891–908; for equivalence Liu et al., Statistics in Medicine 21 (2002) 231–245.
With x helpful and y harmful flips among n items and a supposed difference λ, the statistic is

    z(λ) = (x − y − nλ) / √(n (2 q + λ (1 − λ)))

where q is the maximum-likelihood probability of a harmful flip under that λ. Unlike a Wald interval or a bootstrap it
has a width where there is no flip at all. Of clustered items z is divided by the root of the design effect.
"""

from __future__ import annotations

import math

from scipy import optimize, stats

from workers.analysis.paired.pairs import Interval, Pairs


def harmful_under(pairs: Pairs, difference: float) -> float:
    """q: the most likely probability of a harmful flip if the true difference is `difference`, λ.

    It is a root of 2n q² + B q + C = 0. With x helpful and y harmful flips, B is (2n − x + y) λ − x − y and C is
    −y λ (1 − λ).
    """
    n, x, y = pairs.items, pairs.helpful, pairs.harmful
    a, b, c = 2.0 * n, (2 * n - x + y) * difference - x - y, -y * difference * (1 - difference)
    root = math.sqrt(max(b * b - 4 * a * c, 0.0))
    q = (root - b) / (2 * a)
    return max(q, 0.0, -difference)


def statistic(pairs: Pairs, difference: float) -> float:
    """z(λ), standard normal where the true difference is λ; ±∞ where λ admits no spread and the data differ."""
    n = pairs.items
    lead = pairs.helpful - pairs.harmful - n * difference
    variance = n * (2 * harmful_under(pairs, difference) + difference * (1 - difference))
    if variance <= 1e-12 * n:
        return 0.0 if abs(lead) < 1e-9 * n else math.copysign(math.inf, lead)
    return lead / math.sqrt(variance * pairs.design)


def interval(pairs: Pairs, *, level: float = 0.95) -> Interval:
    """Differences that the score test does not reject."""
    z = float(stats.norm.ppf((1 + level) / 2))
    found = pairs.difference
    edge = 1 - 1e-9

    def limit(sign: float) -> float:
        def beyond(difference: float) -> float:
            return min(max(sign * statistic(pairs, difference), -1e6), 1e6) + z

        end = sign * edge
        if beyond(end) > 0:
            return sign
        return float(optimize.brentq(beyond, found, end, xtol=1e-10))

    return (limit(-1.0), limit(1.0))


def equivalence(pairs: Pairs, margin: float) -> float:
    """p of two one-sided tests: that the difference is within ± margin. The larger of the two."""
    if not 0 < margin < 1:
        raise ValueError(f"a margin is between 0 and 1, not at {margin}")
    above = float(stats.norm.sf(statistic(pairs, -margin)))
    below = float(stats.norm.cdf(statistic(pairs, margin)))
    return max(above, below)
