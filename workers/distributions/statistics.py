"""Summaries of one array of per-token values: order statistics, root mean square, histogram, perplexity.

Everything is computed in float64 and follows numpy's and scipy's default definitions, so that a report can be checked
from the per-token artifact with a line of either.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from app.contracts.report import Histogram

# Quantiles by linear interpolation between neighbours (numpy's default, definition 7 of Hyndman and Fan).
_QUANTILES = {
    "min": 0.0,
    "p001": 0.001,
    "p01": 0.01,
    "p05": 0.05,
    "p10": 0.1,
    "median": 0.5,
    "p90": 0.9,
    "p95": 0.95,
    "p99": 0.99,
    "p999": 0.999,
    "max": 1.0,
}

# Quarters of decades of KL in nats, from what bf16 rounding leaves to a distribution that has nothing in common.
KL_EDGES: tuple[float, ...] = tuple(float(edge) for edge in np.logspace(-8, 1, 37))


def order_statistics(values: ArrayLike) -> dict[str, float]:
    """Quantiles by name; empty for an empty array."""
    column = np.asarray(values, dtype=np.float64)
    if column.size == 0:
        return {}
    return dict(zip(_QUANTILES, np.quantile(column, list(_QUANTILES.values())).tolist(), strict=True))


def root_mean_square(values: ArrayLike) -> float:
    """√mean(x²) of a non-empty array."""
    column = np.asarray(values, dtype=np.float64)
    return float(np.sqrt(np.mean(column**2)))


def perplexity(log_probabilities: ArrayLike) -> float:
    """exp(-mean ln p) of the observed tokens; infinity if that exceeds a float."""
    return exponential(-float(np.mean(np.asarray(log_probabilities, dtype=np.float64))))


def exponential(value: float) -> float:
    """exp that goes to infinity instead of raising OverflowError."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def histogram(values: ArrayLike, edges: tuple[float, ...] = KL_EDGES) -> Histogram:
    """Counts of values between rising edges, edges[i] ≤ v < edges[i+1]; zeros are below the first edge."""
    column = np.asarray(values, dtype=np.float64)
    place: NDArray[np.intp] = np.searchsorted(np.asarray(edges), column, side="right")
    counts = np.bincount(place.ravel(), minlength=len(edges) + 1)
    return Histogram(
        edges=edges,
        counts=tuple(int(count) for count in counts[1:-1]),
        below=int(counts[0]),
        above=int(counts[-1]),
    )
