"""The published form on top of what the unmodified model already has: y(s) = dense + a sᵇ …, fitted to ln y.

The published form alone goes to 0 with s, where a perplexity goes to that of the unmodified model, and its residuals
below the knee show it. With the dense value as additive offset it need not. Where that value is not given it is a
coefficient of the fit, between 0 and the smallest measured value; at 0 it is the published form itself.

No longer linear given the knee, and with several local optima. For a given offset and knee a fit of ln(y - dense) with
weights (y - dense)/y is the same problem to first order, and is solved exactly. The best places of a grid over both are
followed to local optima of the true problem. A knee's descent seldom goes past a point where the sum of squares has a
kink: so the gaps beside the best optimum's are tried as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from workers.analysis.threshold import published
from workers.analysis.threshold.bounds import Bounds
from workers.analysis.threshold.boxed import BoxedDesigns
from workers.analysis.threshold.curve import Array, Curve
from workers.analysis.threshold.forms import FormFit
from workers.analysis.threshold.knee import knee_grid

_SHARES = (0.0, 0.3, 0.6, 0.8, 0.9, 0.95, 0.98, 0.995, 0.9999)
_MOST_SHARE = 1 - 1e-9
# Knees of the grid; where the offset is given the grid is one row.
_KNEES = 32
_KNEES_OF_ONE = 96
_STARTS = 3
_STEPS = 60
_ROUNDS = 3
# A round of descents that gains less, relative to the sum of squares, is the last.
_GAIN = 1e-3
# A point at or below the offset still needs a logarithm for a start.
_LEAST_REST = 1e-3
_LARGEST_LOG = 600.0
_NAMES = ("log_a", "b", "k1", "k2", "s0", "dense")


@dataclass(frozen=True)
class PublishedWithOffset:
    """The published form under the same bounds, over `dense`, or over an offset that is fitted where it is None.

    `knee_range` is where s0 is looked for.
    """

    bounds: Bounds
    knee_range: tuple[float, float]
    dense: float | None = None
    name: str = "power_law_then_exponential_over_dense"
    transition: bool = True

    @property
    def coefficients(self) -> int:
        """Those of the published form that are not fixed, and the offset where it is fitted."""
        return published.free_coefficients(self.bounds) + (self.dense is None)

    def fit(self, curve: Curve) -> FormFit:
        """The best local optimum from the best places of a grid over offset and knee."""
        unit = float(curve.log_N.min())
        problem = self._problem(curve, unit)
        best = min((problem.descend(start) for start in problem.starts()), key=_sse)
        for _ in range(_ROUNDS):
            found = min((problem.descend(start) for start in [best.place, *problem.beside(best.place)]), key=_sse)
            gained, best = best.sse - found.sse, min(best, found, key=_sse)
            if gained <= _GAIN * best.sse:
                break
        place = best.place
        params = {name: float(value) for name, value in zip(_NAMES, place, strict=True)}
        params["log_a"] += unit
        params["dense"] = float(place[5] * math.exp(unit)) if self.dense is None else self.dense
        return FormFit(params, best.sse, lambda s_N: _predict(np.asarray(s_N, dtype=np.float64), place) + unit)

    def _problem(self, curve: Curve, unit: float) -> _Problem:
        """In units of e^unit, so that no value is too large for a product."""
        lower_K, upper_K = self.bounds.box()
        shift_K = np.array([unit, 0.0, 0.0, 0.0])
        offset = (0.0, _MOST_SHARE) if self.dense is None else (self.dense * math.exp(-unit),) * 2
        low, high = self.knee_range
        return _Problem(
            curve.s_N,
            curve.log_N - unit,
            np.array([*(lower_K - shift_K), low, offset[0]]),
            np.array([*(upper_K - shift_K), high, offset[1]]),
        )


@dataclass(frozen=True)
class _Optimum:
    """A place (ln a, b, k1, k2, s0, dense) and its sum of squared residuals."""

    place: Array
    sse: float


@dataclass(frozen=True)
class _Problem:
    """Points and bounds of a place, all in units in which the least value is 1."""

    s_N: Array
    log_N: Array
    lower: Array
    upper: Array

    def starts(self) -> list[Array]:
        """The best local minima of a grid over offset and knee."""
        fitted = self.lower[5] < self.upper[5]
        offsets = _SHARES if fitted else (float(self.lower[5]),)
        knee_G = knee_grid(self.s_N, self.lower[4], self.upper[4], size=_KNEES if fitted else _KNEES_OF_ONE)
        place_OGK = np.stack([self._linear(offset, knee_G) for offset in offsets])
        basis_GNK = published.basis(self.s_N, knee_G)
        grown_OGN = _bounded_exp(np.einsum("gnk,ogk->ogn", basis_GNK, place_OGK[..., :4]))
        sse_OG = ((_log(np.array(offsets)[:, None, None] + grown_OGN) - self.log_N) ** 2).sum(axis=-1)
        padded_OG = np.pad(sse_OG, 1, constant_values=np.inf)
        around = np.lib.stride_tricks.sliding_window_view(padded_OG, (3, 3)).min(axis=(-2, -1))
        minima = np.argwhere(sse_OG <= around)
        best = minima[np.argsort(sse_OG[tuple(minima.T)], kind="stable")][:_STARTS]
        return list(place_OGK[tuple(best.T)])

    def beside(self, place: Array) -> list[Array]:
        """Starts in the middle of the gap between points that holds the knee and of the gaps next to it."""
        low, high = self.lower[4], self.upper[4]
        edges = np.unique([low, *self.s_N[(self.s_N > low) & (self.s_N < high)], high])
        middle_G = 0.5 * (edges[:-1] + edges[1:])
        own = int(np.searchsorted(edges[1:-1], place[4]))
        near_G = middle_G[max(own - 1, 0) : own + 2]
        return list(self._linear(float(place[5]), near_G)) if len(near_G) else []

    def descend(self, start: Array) -> _Optimum:
        """The local optimum from `start`, which is never worse than that."""
        free = self.lower < self.upper
        place = np.clip(start, self.lower, self.upper)

        def at(moved: Array) -> Array:
            full = place.copy()
            full[free] = moved
            return full

        def residual(moved: Array) -> Array:
            return _predict(self.s_N, at(moved)) - self.log_N

        def jacobian(moved: Array) -> Array:
            return np.asarray(_jacobian(self.s_N, at(moved))[:, free])

        found = place
        if free.any():
            solved = optimize.least_squares(
                residual,
                place[free],
                jac=jacobian,
                bounds=(self.lower[free], self.upper[free]),
                x_scale="jac",
                max_nfev=_STEPS,
            )
            found = at(solved.x)
        # The solver starts a little inside the bounds and may end above where it began.
        ends = [_Optimum(end, float(((_predict(self.s_N, end) - self.log_N) ** 2).sum())) for end in (found, place)]
        return min(ends, key=_sse)

    def _linear(self, offset: float, knee_G: Array) -> Array:
        """Places (G, 6) of the weighted linear problems for one offset."""
        share_N = np.maximum(1 - offset * np.exp(-self.log_N), _LEAST_REST)
        design_GNK = published.basis(self.s_N, knee_G) * share_N[:, None]
        designs = BoxedDesigns(design_GNK, self.lower[:4], self.upper[:4])
        coefficient_GK, _ = designs.solve((self.log_N + np.log(share_N)) * share_N)
        return np.column_stack([coefficient_GK, knee_G, np.full(len(knee_G), offset)])


def _sse(optimum: _Optimum) -> float:
    return optimum.sse


def _log(value: Array) -> Array:
    return np.asarray(np.log(np.maximum(value, 1e-300)))


def _bounded_exp(log: Array) -> Array:
    return np.asarray(np.exp(np.clip(log, -_LARGEST_LOG, _LARGEST_LOG)))


def _grown(s_N: Array, place: Array) -> Array:
    """The published form's part, not its logarithm."""
    return _bounded_exp(published.basis(s_N, place[4:5])[0] @ place[:4])


def _predict(s_N: Array, place: Array) -> Array:
    return _log(place[5] + _grown(s_N, place))


def _jacobian(s_N: Array, place: Array) -> Array:
    grown_N = _grown(s_N, place)
    total_N = np.maximum(place[5] + grown_N, 1e-300)
    inner_NK = published.tangents(s_N, place[1], place[2], place[3], place[4])
    return np.column_stack([inner_NK * (grown_N / total_N)[:, None], 1 / total_N])
