"""The published form of a robustness curve: a power law up to the knee s0, a quadratic exponential beyond it.

    ln y(s) = ln a + b ln s                                        s ≤ s0

    ln y(s) = ln a + b ln s0 + k1 (s - s0) + k2 (s - s0)²          s > s0

Recovered from the drawn curves of "Phase transitions in large language model compression" (npj Artificial Intelligence
2026, 2:21). There y is the perplexity and s the share removed. The fit is least squares on ln y under box bounds. Given
s0 the form is linear in (ln a, b, k1, k2).

The power law goes to 0 at s = 0, so the unmodified model's point cannot belong to the curve. The knee s0 depends on the
form and on the bounds, and says nothing without both.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import numpy as np

from workers.analysis.threshold.bounds import NAMES, Bounds
from workers.analysis.threshold.curve import Array, Curve
from workers.analysis.threshold.forms import FormFit
from workers.analysis.threshold.knee import KneeSearch

NAME = "power_law_then_exponential"
_LARGEST_LOG = math.log(sys.float_info.max)


def basis(s_N: Array, knee_G: Array) -> Array:
    """Columns 1, ln min(s, s0), (s - s0)₊, (s - s0)₊² for each knee: (G, N, 4)."""
    beyond_GN = np.maximum(s_N - knee_G[:, None], 0.0)
    return np.stack(
        [np.ones_like(beyond_GN), np.log(np.minimum(s_N, knee_G[:, None])), beyond_GN, beyond_GN**2], axis=-1
    )


def tangents(s_N: Array, b: float, k1: float, k2: float, knee: float) -> Array:
    """Derivatives of ln y by ln a, b, k1, k2 and s0: (N, 5)."""
    design_NK = basis(s_N, np.array([knee]))[0]
    by_knee_N = np.where(s_N > knee, b / knee - k1 - 2 * k2 * design_NK[:, 2], 0.0)
    return np.column_stack([design_NK, by_knee_N])


def search(curve: Curve, bounds: Bounds) -> KneeSearch:
    """The search for s0. Raises ValueError if the bounds of s0 and the measured range do not meet."""
    return search_in(bounds.knee_range(curve), bounds)


def search_in(knee_range: tuple[float, float], bounds: Bounds) -> KneeSearch:
    """The search for s0 in a given range."""
    lower_K, upper_K = bounds.box()
    return KneeSearch(basis, lower_K, upper_K, *knee_range)


def free_coefficients(bounds: Bounds) -> int:
    """How many of ln a, b, s0, k1, k2 the bounds leave open."""
    return sum(not bounds.fixed(name) for name in NAMES)


@dataclass(frozen=True)
class PublishedFit:
    """Coefficients and the sum of squared residuals of ln y; `tied` is the stretch of s0 that fits equally well."""

    log_a: float
    b: float
    s0: float
    k1: float
    k2: float
    log_sse: float
    tied: tuple[float, float]
    a: float

    def predict(self, s_N: Array) -> Array:
        """ln y at settings s."""
        coefficient_K = np.array([self.log_a, self.b, self.k1, self.k2])
        return np.asarray(basis(np.asarray(s_N, dtype=np.float64), np.array([self.s0]))[0] @ coefficient_K)

    def slopes(self) -> tuple[float, float]:
        """d ln y / ds just below and just above s0, per unit of s."""
        return self.b / self.s0, self.k1

    def params(self) -> dict[str, float]:
        """The coefficients by name."""
        return {"a": self.a, "b": self.b, "s0": self.s0, "k1": self.k1, "k2": self.k2}


def fit(curve: Curve, bounds: Bounds) -> PublishedFit:
    """The global optimum under the bounds. Raises ValueError if the bounds of s0 miss the measured range."""
    found = search(curve, bounds).fit(curve)
    log_a, b, k1, k2 = (float(value) for value in found.coefficient_K)
    low, high = bounds.a
    # exp(log(x)) may miss x by a digit; a bound is kept to the last one.
    a = max(0.0 if low is None else low, min(math.exp(min(log_a, _LARGEST_LOG)), math.inf if high is None else high))
    return PublishedFit(log_a, b, found.knee, k1, k2, found.sse, found.tied, a)


@dataclass(frozen=True)
class PublishedForm:
    """The published form under bounds, as one form among others. `knee_range` is where s0 is looked for."""

    bounds: Bounds
    knee_range: tuple[float, float]
    name: str = NAME
    transition: bool = True

    @property
    def coefficients(self) -> int:
        """Those that the bounds leave open."""
        return free_coefficients(self.bounds)

    def fit(self, curve: Curve) -> FormFit:
        """The global optimum."""
        found = search_in(self.knee_range, self.bounds).fit(curve)
        log_a, b, k1, k2 = (float(value) for value in found.coefficient_K)
        knee_G, coefficient_K = np.array([found.knee]), found.coefficient_K
        params = {"log_a": log_a, "b": b, "s0": found.knee, "k1": k1, "k2": k2}
        return FormFit(params, found.sse, lambda s_N: np.asarray(basis(s_N, knee_G)[0] @ coefficient_K))
