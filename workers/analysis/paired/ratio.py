"""The score interval for the ratio of two paired shares: what part of the reference's accuracy the candidate keeps.

Nam and Blackwelder, Statistics in Medicine 21 (2002) 689–699; Tang, Tang and Chan, Statistics in Medicine 22 (2003)
1217–1233. Of m items that at least one of the two answers rightly, the reference has R right answers and the candidate
C. The statistic for a supposed ratio θ is

    z(θ) = (C − θR) / √(m (θ − 1 + (1 + θ) q))

where q is the maximum-likelihood share of harmful flips among those m under that θ. Like the score interval for a
difference it has a width where there is no flip at all. Items that neither answers rightly have no part in it.
"""

from __future__ import annotations

import math

from scipy import optimize, stats

from workers.analysis.paired.pairs import Interval, Pairs

# Ratios above are not looked for: so many right answers for one of the reference's.
_MOST = 1e9


def harmful_under(pairs: Pairs, ratio: float) -> float:
    """q: the most likely share of harmful flips among items that one of both answers rightly.

    The true ratio of accuracies is `ratio`, θ. With x helpful and y harmful flips q is a root of

        (1 + θ) m q² + ((θ² − 1) R − x − y) q − y (θ − 1) = 0

    It is never so low that a share of helpful ones would be below 0.
    """
    m = pairs.both_right + pairs.flips
    a = (1 + ratio) * m
    b = (ratio * ratio - 1) * (pairs.both_right + pairs.harmful) - pairs.flips
    c = -pairs.harmful * (ratio - 1)
    root = math.sqrt(max(b * b - 4 * a * c, 0.0))
    return max((root - b) / (2 * a), 0.0, 1 - ratio)


def statistic(pairs: Pairs, ratio: float) -> float:
    """z(θ), standard normal where the true ratio is θ > 0; ±∞ where θ admits no spread and the data differ."""
    m = pairs.both_right + pairs.flips
    lead = (pairs.both_right + pairs.helpful) - ratio * (pairs.both_right + pairs.harmful)
    variance = m * (ratio - 1 + (1 + ratio) * harmful_under(pairs, ratio))
    if variance <= 1e-12 * m:
        return 0.0 if abs(lead) < 1e-9 * m else math.copysign(math.inf, lead)
    return lead / math.sqrt(variance)


def interval(pairs: Pairs, *, level: float = 0.95) -> Interval:
    """Ratios candidate / reference of the true accuracies that the score test does not reject.

    Raises ValueError if the reference answers nothing rightly: there is no ratio then.
    """
    reference = pairs.both_right + pairs.harmful
    if not reference:
        raise ValueError("the reference has no right answer, of which a part could be kept")
    z = float(stats.norm.ppf((1 + level) / 2))
    found = (pairs.both_right + pairs.helpful) / reference

    def beyond(ratio: float, sign: float) -> float:
        return min(max(sign * statistic(pairs, ratio), -1e6), 1e6) - z

    low = 0.0
    if found > 0:
        start = min(found, 1.0) * 1e-9
        low = 0.0 if beyond(start, 1.0) < 0 else float(optimize.brentq(beyond, start, found, args=(1.0,), xtol=1e-10))
    high = max(2 * found, 1.0)
    while beyond(high, -1.0) < 0:
        high *= 2
        if high > _MOST:
            raise ValueError(f"no ratio up to {_MOST:g} is rejected")
    return low, float(optimize.brentq(beyond, found, high, args=(-1.0,), xtol=1e-10))
