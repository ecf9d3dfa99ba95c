"""Which setting to measure next, where a budget allows fewer than all.

First a few settings spread evenly over the range. Then, one at a time, the setting whose measurement is expected to
narrow the threshold's interval most.

For a knob with s the interval is that of the knee of the published form. What is known of the knee is its profile: each
knee c of a grid has the least sum of squares SSE(c) that the form leaves there. With unknown noise variance its weight
is w(c) ∝ SSE(c)^(−n/2), the profile likelihood of n Gaussian errors. Were the truth the knee c with its best
coefficients, a measurement at s would give ŷ_c(s) plus noise, and the weights would become w(c′)·φ((ŷ_c′(s) − y)/σ).
The expected width of the 95 % interval after measuring s is the mean of that over c by weight and over the noise. The
least one is taken (Lindley, Annals of Mathematical Statistics 27, 1956: choose the experiment by its expected yield).
Coefficients other than the knee are not drawn: each knee is taken with its best ones.

For a knob without s it is the place where damage stops being mild, on each side of a neutral value. That place is the
middle of the settings between the strongest that is mild and the weakest that is not.

Names: N measured settings, M settings that could be measured, G knees, H nodes of the noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from workers.analysis.threshold import published
from workers.analysis.threshold.bounds import Bounds
from workers.analysis.threshold.curve import Curve
from workers.analysis.threshold.interval import CONFIDENCE

Array = NDArray[np.float64]

# The published form has five coefficients: with fewer points every knee fits.
FIRST_LOOK: Final = 6
_GRID: Final = 160
# Noise of ln y below this is not believed: a handful of points may lie on a form by chance.
LEAST_NOISE: Final = 0.01
_NODES: Final = 5


def first_look(count: int, budget: int) -> list[int]:
    """Places of the settings to begin with, of `count` in the order of strength: evenly spread, both ends included."""
    many = min(count, budget, FIRST_LOOK)
    return sorted({round(index * (count - 1) / max(1, many - 1)) for index in range(many)})


def knee_weights(curve: Curve, bounds: Bounds) -> tuple[Array, Array, Array, float]:
    """Knees (G,), the coefficients that are best for each (G, 4), how likely each is (G,), and the noise of ln y."""
    search = published.search(curve, bounds)
    knee_G = search.grid(curve.s_N, size=_GRID)
    coefficient_GK, sse_G = search.designs(curve.s_N, knee_G).solve(curve.log_N)
    count = len(curve)
    freedom = max(1, count - published.free_coefficients(bounds))
    noise = math.sqrt(max(float(sse_G.min()) / freedom, LEAST_NOISE**2))
    log_G = -0.5 * count * np.log((sse_G + count * LEAST_NOISE**2) / (sse_G.min() + count * LEAST_NOISE**2))
    # Knees stand closer where points do: each counts as far as its stretch goes.
    weight_G = np.exp(log_G) * np.gradient(knee_G) if len(knee_G) > 1 else np.ones(1)
    return knee_G, coefficient_GK, weight_G / weight_G.sum(), noise


def expected_width(s_M: Array, curve: Curve, bounds: Bounds) -> Array:
    """Expected width of the knee's 95 % interval after one of the settings was measured: (M,)."""
    knee_G, coefficient_GK, weight_G, noise = knee_weights(curve, bounds)
    likely = weight_G > 1e-6
    knee_G, coefficient_GK, weight_G = knee_G[likely], coefficient_GK[likely], weight_G[likely] / weight_G[likely].sum()
    node_H, mass_H = np.polynomial.hermite_e.hermegauss(_NODES)
    mass_H = mass_H / mass_H.sum()
    predicted_GM = np.einsum("gmk,gk->gm", published.basis(s_M, knee_G), coefficient_GK)
    width_M = np.zeros(len(s_M))
    for place in range(len(s_M)):
        value_G = predicted_GM[:, place]
        for node, mass in zip(node_H, mass_H, strict=True):
            # One row for each truth: what the weights become after its measurement.
            measured_G = value_G + noise * node
            log_TG = -0.5 * ((value_G[None, :] - measured_G[:, None]) / noise) ** 2
            posterior_TG = weight_G * np.exp(log_TG - log_TG.max(axis=1, keepdims=True))
            width_T = _widths(knee_G, posterior_TG)
            width_M[place] += mass * float((weight_G * width_T).sum())
    return width_M


def next_by_knee(s: Sequence[float], measured: Sequence[int], log_y: Sequence[float], bounds: Bounds) -> int | None:
    """The place, among all settings `s`, to measure next; None if all are. `log_y` belongs to `measured`.

    Raises ValueError for fewer than five measured settings.
    """
    left = [place for place in range(len(s)) if place not in set(measured)]
    if not left:
        return None
    curve = Curve.of([s[place] for place in measured], np.exp(np.asarray(log_y)))
    width_M = expected_width(np.array([s[place] for place in left]), curve, bounds)
    # Where nothing is to be gained, the middle of the widest gap.
    if np.ptp(width_M) <= 1e-9 * max(1e-12, float(width_M.max())):
        return widest_gap(len(s), measured)
    return left[int(width_M.argmin())]


def open_stretch(measured: Sequence[int], within: Sequence[bool]) -> tuple[int, int] | None:
    """The places of the strongest setting that is within a limit, with all weaker ones, and of the next, where settings
    lie between them. `within` belongs to `measured`."""
    for (weaker, good), (stronger, after) in pairwise(sorted(zip(measured, within, strict=True))):
        if not good:
            break
        if not after:
            return (weaker, stronger) if stronger - weaker > 1 else None
    return None


def widest_gap(count: int, measured: Sequence[int]) -> int | None:
    """The middle of the longest run of settings that are not measured; None if there is none."""
    taken = sorted(set(measured))
    edges = [-1, *taken, count]
    gaps = [(right - left, left, right) for left, right in pairwise(edges) if right - left > 1]
    if not gaps:
        return None
    _, left, right = max(gaps, key=lambda gap: (gap[0], -gap[1]))
    return (left + right) // 2


def _widths(knee_G: Array, weight_TG: Array) -> Array:
    """Widths of the central 95 % of knees, a row of weights each."""
    below_TG = np.cumsum(weight_TG, axis=1)
    below_TG /= below_TG[:, -1:]
    tail = 0.5 * (1 - CONFIDENCE)
    low_T = (below_TG < tail).sum(axis=1)
    high_T = np.minimum((below_TG < 1 - tail).sum(axis=1), len(knee_G) - 1)
    return np.asarray(knee_G[high_T] - knee_G[low_T])
