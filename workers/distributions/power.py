"""What a text of this size can show: the smallest effect that it detects, and how much more text would decide.

Both extrapolate from the standard error at hand, so both are approximate. It shrinks with the square root of the number
of tokens as long as more text means more documents of the same kind.
"""

import math
from collections.abc import Iterable

from scipy import stats


def minimum_detectable_effect(
    standard_error: float, clusters: int, *, level: float = 0.05, power: float = 0.8
) -> float | None:
    """Smallest distance from a fixed value that a two-sided t-test at `level` detects with probability `power`.

    In the unit of `standard_error`: (t(1 - level/2) + t(power)) standard errors, both quantiles with clusters - 1
    degrees of freedom; with many clusters (1.96 + 0.84). None for fewer than two clusters.
    """
    if clusters < 2:
        return None
    freedom = clusters - 1
    return float(stats.t.ppf(1 - level / 2, freedom) + stats.t.ppf(power, freedom)) * standard_error


def tokens_to_decide(
    tokens: int, mean: float, interval: tuple[float, float], thresholds: Iterable[float]
) -> int | None:
    """Tokens at which the interval, shrunk about the same mean, would leave every threshold that now is in it.

    The limits stay in proportion and close in as 1/√tokens, so a threshold between `mean` and a limit at distance w
    leaves at tokens · (w / |mean - threshold|)². The present number where nothing is in it; None if a threshold
    is on the mean itself: no amount of text decides that.
    """
    low, high = interval
    needed = 0.0
    for threshold in thresholds:
        if not low < threshold <= high:
            continue
        if threshold == mean:
            return None
        width = high - mean if threshold > mean else mean - low
        needed = max(needed, tokens * (width / (threshold - mean)) ** 2)
    # One more than the equality: on its limit a threshold is not left yet.
    return max(tokens, math.floor(needed) + 1)
