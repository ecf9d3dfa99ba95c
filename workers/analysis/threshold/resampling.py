"""Draws of a curve under a model of it: a residual bootstrap with a variance for each point.

With a dozen points and five coefficients neither textbook form will do. One common variance for all points is wrong
where noise grows with the damage. The wild bootstrap lets each residual speak for its own point. It draws from as many
variances as there are residuals and covers far too little (docs/threshold.md has the table). So the variance runs along
s as an exponential, v(s) ∝ e^(g z) with z from -½ to ½. Its g is fitted to the squared residuals and held towards 0, an
even noise, by a prior. The prior is g ~ N(0, 2²): a standard deviation that changes by e over the curve is one sigma.
One seventh of each point's variance is its own squared residual's, corrected for leverage, for noise that no such trend
describes. The draws are Gaussian.
"""

from __future__ import annotations

import numpy as np

from workers.analysis.threshold.curve import ROUNDING, Array

_OWN_SHARE = 1 / 7
_MOST_LEVERAGE = 0.9
_PRIOR = 2.0
# Points that the fit goes through whatever they are say nothing of their noise.
_LEAST_FREEDOM = 1e-9
# Growths of the logarithm of the variance over the curve that are tried.
_GROWTH_G = np.linspace(-6.0, 6.0, 97)


def point_variances(s_N: Array, residual_N: Array, tangent_NK: Array) -> Array:
    """Variance of each point's noise from residuals of a fit with these tangents (derivatives by each coefficient).

    The growth g maximizes the Gaussian likelihood of the residuals, times the prior. Each residual has the variance
    that the fit leaves of v(s): the diagonal of M V M, with M = 1 - H. It is counted by what freedom it has (1 -
    leverage). The level is such that the expected sum of squares, trace(M V), is the one found.
    """
    length_K = np.sqrt((tangent_NK**2).sum(axis=0))
    left_NK, size_K, _ = np.linalg.svd(tangent_NK / np.where(length_K > 0, length_K, 1.0), full_matrices=False)
    left_NK = left_NK[:, size_K > 1e-8 * size_K[0]]
    leverage_N = (left_NK**2).sum(axis=1)
    own_N = residual_N**2 / (1 - np.minimum(leverage_N, _MOST_LEVERAGE))
    trend_N = np.exp(_growth(s_N, residual_N, left_NK) * _along(s_N))
    # A fit with as many coefficients as points leaves nothing: one point's freedom is then taken.
    left_over = max(float((trend_N * (1 - leverage_N)).sum()), float(trend_N.min()))
    level = (residual_N**2).sum() / left_over
    return np.asarray((1 - _OWN_SHARE) * level * trend_N + _OWN_SHARE * own_N + ROUNDING**2)


def _along(s_N: Array) -> Array:
    """z: s from -½ at the first point to ½ at the last."""
    return np.asarray((s_N - s_N[0]) / (s_N[-1] - s_N[0]) - 0.5)


def _growth(s_N: Array, residual_N: Array, left_NK: Array) -> float:
    annihilator_NN = np.eye(len(s_N)) - left_NK @ left_NK.T
    seen_N = annihilator_NN.diagonal() > _LEAST_FREEDOM
    if not seen_N.any():
        return 0.0
    freedom_N = annihilator_NN.diagonal()[seen_N]
    expected_GN = (np.exp(np.outer(_GROWTH_G, _along(s_N))) @ annihilator_NN**2)[:, seen_N]
    ratio_GN = (residual_N[seen_N] ** 2 + ROUNDING**2) / expected_GN
    # The level that suits each growth best is put in: what is left of the likelihood is the means' inequality.
    level_G = (freedom_N * ratio_GN).sum(axis=1) / freedom_N.sum()
    loss_G = freedom_N.sum() * np.log(level_G) + (freedom_N * np.log(expected_GN)).sum(axis=1)
    return float(_GROWTH_G[int(np.argmin(0.5 * loss_G + 0.5 * (_GROWTH_G / _PRIOR) ** 2))])


def draw(rng: np.random.Generator, mean_N: Array, variance_N: Array, resamples: int) -> Array:
    """Curves (B, N) around a mean."""
    return np.asarray(mean_N + rng.standard_normal((resamples, len(mean_N))) * np.sqrt(variance_N))


def excess(restricted_sse: Array | float, free_sse: Array | float, count: int) -> Array:
    """How much worse the restricted fit is: the relative increase of the sum of squares, rounding added to both."""
    floor = count * ROUNDING**2
    return np.asarray((restricted_sse - free_sse) / (free_sse + floor))
