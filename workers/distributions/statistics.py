"""Summaries of one array of per-token values: order statistics, root mean square, histogram, perplexity.

Everything is computed in float64 and follows numpy's and scipy's default definitions, so that a report can be checked
from the per-token artifact with a line of either.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class OrderStatistics:
    """Quantiles by linear interpolation between neighbours (numpy's default, definition 7 of Hyndman and Fan)."""

    min: float
    p001: float
    p01: float
    p05: float
    p10: float
    median: float
    p90: float
    p95: float
    p99: float
    p999: float
    max: float


_PROBABILITIES = (0.0, 0.001, 0.01, 0.05, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0)

# Quarters of decades of KL in nats, from what bf16 rounding leaves to a distribution that has nothing in common.
KL_EDGES: tuple[float, ...] = tuple(float(edge) for edge in np.logspace(-8, 1, 37))


def order_statistics(values: ArrayLike) -> OrderStatistics:
    """Order statistics of a non-empty array; ValueError for an empty one."""
    column = np.asarray(values, dtype=np.float64)
    if column.size == 0:
        raise ValueError("order statistics of nothing do not exist")
    return OrderStatistics(*(float(quantile) for quantile in np.quantile(column, _PROBABILITIES)))


def root_mean_square(values: ArrayLike) -> float:
    """√mean(x²) of a non-empty array."""
    column = np.asarray(values, dtype=np.float64)
    return float(np.sqrt(np.mean(column**2)))


def perplexity(log_probabilities: ArrayLike) -> float:
    """exp(-mean ln p) of the observed tokens; infinity where that exceeds a float."""
    return exponential(-float(np.mean(np.asarray(log_probabilities, dtype=np.float64))))


def exponential(value: float) -> float:
    """exp that goes to infinity instead of raising OverflowError."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


@dataclass(frozen=True)
class Histogram:
    """counts[i] values v with edges[i] ≤ v < edges[i+1]; `below` the first edge (zeros too), `above` from the last."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    below: int
    above: int


def histogram(values: ArrayLike, edges: tuple[float, ...] = KL_EDGES) -> Histogram:
    """Counts of values between rising edges."""
    column = np.asarray(values, dtype=np.float64)
    place: NDArray[np.intp] = np.searchsorted(np.asarray(edges), column, side="right")
    counts = np.bincount(place.ravel(), minlength=len(edges) + 1)
    return Histogram(
        edges=edges,
        counts=tuple(int(count) for count in counts[1:-1]),
        below=int(counts[0]),
        above=int(counts[-1]),
    )
