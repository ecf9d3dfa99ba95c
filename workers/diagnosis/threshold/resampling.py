"""Draws of a curve under a model of it: a residual bootstrap that is in part wild.

With a dozen points and five coefficients neither textbook form will do. One common variance for all points is wrong
where noise grows with the damage; the wild bootstrap, which lets each residual speak for its own point, draws from as
many variances as there are residuals and covers far too little (docs/threshold.md has the table). So each point's
variance is two thirds the common one and one third its own squared residual, corrected for leverage. The draws are
Gaussian.
"""

from __future__ import annotations

import numpy as np

from workers.diagnosis.threshold.curve import ROUNDING, Array

_OWN_SHARE = 1 / 3
_MOST_LEVERAGE = 0.9


def point_variances(residual_N: Array, tangent_NK: Array) -> Array:
    """Variance of each point's noise from residuals of a fit with these tangents (derivatives by each coefficient)."""
    count = len(residual_N)
    length_K = np.sqrt((tangent_NK**2).sum(axis=0))
    left_NK, size_K, _ = np.linalg.svd(tangent_NK / np.where(length_K > 0, length_K, 1.0), full_matrices=False)
    left_NK = left_NK[:, size_K > 1e-8 * size_K[0]]
    freedom = max(count - left_NK.shape[1], 1)
    leverage_N = np.minimum((left_NK**2).sum(axis=1), _MOST_LEVERAGE)
    common = (residual_N**2).sum() / freedom
    own_N = residual_N**2 / (1 - leverage_N)
    return np.asarray((1 - _OWN_SHARE) * common + _OWN_SHARE * own_N + ROUNDING**2)


def draw(rng: np.random.Generator, mean_N: Array, variance_N: Array, resamples: int) -> Array:
    """Curves (B, N) around a mean."""
    return np.asarray(mean_N + rng.standard_normal((resamples, len(mean_N))) * np.sqrt(variance_N))


def excess(restricted_sse: Array | float, free_sse: Array | float, count: int) -> Array:
    """How much worse the restricted fit is: the relative increase of the sum of squares, rounding added to both."""
    floor = count * ROUNDING**2
    return np.asarray((restricted_sse - free_sse) / (free_sse + floor))
