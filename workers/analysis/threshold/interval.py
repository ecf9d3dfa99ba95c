"""A 95 % interval for the knee of a bare curve, by inverting a bootstrapped test.

The interval holds each c for which "the knee is at c" is not rejected. The statistic is the relative increase of the
sum of squares when the knee is held at c, D(c) = (SSE(c) - SSE(ŝ0)) / SSE(ŝ0). It follows kinks, bounds and flat
stretches of the profile, where ŝ0 ± 1.96 se would be wrong. Its critical value comes from curves drawn around the fit
with the knee held at c, so under the hypothesis tested. The method is that of Hansen, Regression kink with an unknown
threshold, Journal of Business & Economic Statistics 35, 2017. The critical value is computed at three places and
interpolated, for it changes slowly.

The draws, see `resampling`, take the form for granted. Where it does not fit, the interval is that of the form's best
knee and not of a knee that nature knows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from workers.analysis.threshold import published
from workers.analysis.threshold.bounds import Bounds
from workers.analysis.threshold.curve import Array, Curve
from workers.analysis.threshold.resampling import draw, excess, point_variances

CONFIDENCE = 0.95
RESAMPLES = 999
_FINE = 48
_COARSE = 96
# The profile is looked at closely wherever the F test at this level does not reject.
_LOOK = 0.999


@dataclass(frozen=True)
class KneeInterval:
    """The hull of the knees that are not rejected, and the range in which they were looked for."""

    low: float
    high: float
    searched: tuple[float, float]


def knee_interval(
    curve: Curve, bounds: Bounds, fit: published.PublishedFit, *, seed: int = 0, resamples: int = RESAMPLES
) -> KneeInterval:
    """The 95 % interval of s0; the whole searched range where fewer points than coefficients leave nothing to test."""
    search = published.search(curve, bounds)
    searched = (search.low, search.high)
    freedom = len(curve) - published.free_coefficients(bounds)
    if search.low == search.high:
        return KneeInterval(search.low, search.high, searched)
    if freedom < 1:
        return KneeInterval(*searched, searched)

    coarse_G = search.grid(curve.s_N, size=_COARSE)
    _, sse_G = search.designs(curve.s_N, coarse_G).solve(curve.log_N)
    look = float(stats.f.ppf(_LOOK, 1, freedom)) / freedom
    inside_G = excess(sse_G, fit.log_sse, len(curve)) <= look
    low, high = _hull(coarse_G, inside_G, fit.s0)
    knee_G = np.unique(np.concatenate([coarse_G, np.linspace(low, high, _FINE), [fit.s0]]))
    designs = search.designs(curve.s_N, knee_G)
    coefficient_GK, sse_G = designs.solve(curve.log_N)
    excess_G = excess(sse_G, sse_G.min(), len(curve))

    usual = float(stats.f.ppf(CONFIDENCE, 1, freedom)) / freedom
    likely = np.flatnonzero(excess_G <= usual)
    best = int(np.searchsorted(knee_G, fit.s0))
    tangent_NK = published.tangents(curve.s_N, fit.b, fit.k1, fit.k2, fit.s0)
    variance_N = point_variances(curve.s_N, curve.log_N - fit.predict(curve.s_N), tangent_NK)
    rng = np.random.default_rng(seed)
    nodes = sorted({int(likely.min(initial=best)), best, int(likely.max(initial=best))})
    critical = []
    for node in nodes:
        mean_N = designs.design_GNK[node] @ coefficient_GK[node]
        sse_GB = designs.sse(draw(rng, mean_N, variance_N, resamples))
        critical.append(np.quantile(excess(sse_GB[node], sse_GB.min(axis=0), len(curve)), CONFIDENCE))
    margin_G = np.interp(knee_G, knee_G[nodes], critical) - excess_G
    inside = np.flatnonzero(margin_G >= 0)
    first, last = int(inside.min(initial=best)), int(inside.max(initial=best))
    return KneeInterval(
        _crossing(knee_G, margin_G, first, first - 1), _crossing(knee_G, margin_G, last, last + 1), searched
    )


def _hull(knee_G: Array, inside_G: NDArray[np.bool_], knee: float) -> tuple[float, float]:
    """The hull of the marked knees and `knee`, one step wider on both sides."""
    inside = np.flatnonzero(inside_G)
    place = int(np.searchsorted(knee_G, knee))
    first = max(min(int(inside.min(initial=place)), place) - 1, 0)
    last = min(max(int(inside.max(initial=place)), place) + 1, len(knee_G) - 1)
    return float(knee_G[first]), float(knee_G[last])


def _crossing(knee_G: Array, margin_G: Array, inside: int, outside: int) -> float:
    """Where the margin reaches 0 between the last knee inside and its neighbour outside; linear."""
    if not 0 <= outside < len(knee_G) or margin_G[inside] <= 0 or margin_G[outside] >= 0:
        return float(knee_G[inside])
    part = margin_G[inside] / (margin_G[inside] - margin_G[outside])
    return float(knee_G[inside] + part * (knee_G[outside] - knee_G[inside]))
