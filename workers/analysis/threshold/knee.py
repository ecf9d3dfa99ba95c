"""The search for a knee: a curve that is linear in its coefficients once the place of its knee is given.

The profile is the least sum of squares as a function of the knee. It is continuous inside a gap between two points, and
smooth except where a coefficient reaches or leaves a bound. It may have several minima, and a kink at every point. So
the whole range is gridded, every point is on the grid, and the best minima are zoomed into with their centres kept. A
minimum at a kink is found exactly. Nothing is random.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from workers.analysis.threshold.boxed import BoxedDesigns
from workers.analysis.threshold.curve import Array, Curve

# From settings (N,) and knees (G,) to designs (G, N, K).
Basis = Callable[[Array, Array], Array]

_GRID = 192
_MOST_PER_GAP = 16
_MINIMA = 4
_ZOOMS = 6
_ZOOM_POINTS = 6
# After so many zooms a minimum that is not among the two best is not going to be the best.
_ROUGH_ZOOMS = 2
# Knees whose sums of squares differ by less, relative to the total sum of squares, are equally good.
_TIE = 1e-12


@dataclass(frozen=True)
class KneeFit:
    """The best knee, the coefficients there, the sum of squared residuals; `tied` is the stretch that fits as well."""

    knee: float
    coefficient_K: Array
    sse: float
    tied: tuple[float, float]


@dataclass(frozen=True)
class KneeSearch:
    """What is searched: a basis, bounds on its coefficients, and the range of the knee."""

    basis: Basis
    lower_K: Array
    upper_K: Array
    low: float
    high: float

    def designs(self, s_N: Array, knee_G: Array) -> BoxedDesigns:
        """The designs of some knees."""
        return BoxedDesigns(self.basis(s_N, knee_G), self.lower_K, self.upper_K)

    def grid(self, s_N: Array, *, size: int = _GRID) -> Array:
        """Knees over the range, about `size`, with every point in between among them unless there are more of them."""
        return knee_grid(s_N, self.low, self.high, size=size)

    def fit(self, curve: Curve) -> KneeFit:
        """The global optimum. Among equally good knees, the middle of their stretch."""
        grid_G = self.grid(curve.s_N)
        _, sse_G = self.designs(curve.s_N, grid_G).solve(curve.log_N)
        total = float(((curve.log_N - curve.log_N.mean()) ** 2).sum()) + 1e-30
        knee, sse = self._zoom(curve, grid_G, sse_G)
        tied = self._tied(grid_G, sse_G, knee, sse + _TIE * total)
        if tied[1] > tied[0]:
            middle = 0.5 * (tied[0] + tied[1])
            _, (middle_sse,) = self.designs(curve.s_N, np.array([middle])).solve(curve.log_N)
            knee = middle if middle_sse <= sse + 2 * _TIE * total else knee
        coefficient_GK, (sse,) = self.designs(curve.s_N, np.array([knee])).solve(curve.log_N)
        return KneeFit(float(knee), coefficient_GK[0], float(sse), tied)

    def _zoom(self, curve: Curve, grid_G: Array, sse_G: Array) -> tuple[float, float]:
        padded_G = np.pad(sse_G, 1, constant_values=np.inf)
        minima = np.flatnonzero((sse_G <= padded_G[:-2]) & (sse_G <= padded_G[2:]))
        minima = minima[np.argsort(sse_G[minima], kind="stable")][:_MINIMA]
        left_M, right_M = grid_G[np.maximum(minima - 1, 0)], grid_G[np.minimum(minima + 1, len(grid_G) - 1)]
        best_M = grid_G[minima]
        step = np.linspace(0.0, 1.0, _ZOOM_POINTS + 1)
        least_M = sse_G[minima]
        for zoom in range(_ZOOMS):
            if zoom == _ROUGH_ZOOMS:
                kept = np.argsort(least_M, kind="stable")[:2]
                left_M, best_M, right_M = left_M[kept], best_M[kept], right_M[kept]
            knee_MZ = np.concatenate(
                [
                    left_M[:, None] + (best_M - left_M)[:, None] * step,
                    (best_M[:, None] + (right_M - best_M)[:, None] * step)[:, 1:],
                ],
                axis=1,
            )
            _, sse_Z = self.designs(curve.s_N, knee_MZ.ravel()).solve(curve.log_N)
            sse_MZ = sse_Z.reshape(knee_MZ.shape)
            rows, at_M = np.arange(len(sse_MZ)), sse_MZ.argmin(axis=1)
            least_M, best_M = sse_MZ[rows, at_M], knee_MZ[rows, at_M]
            left_M = knee_MZ[rows, np.maximum(at_M - 1, 0)]
            right_M = knee_MZ[rows, np.minimum(at_M + 1, knee_MZ.shape[1] - 1)]
        winner = int(least_M.argmin())
        return float(best_M[winner]), float(least_M[winner])

    @staticmethod
    def _tied(grid_G: Array, sse_G: Array, knee: float, limit: float) -> tuple[float, float]:
        """The run of grid knees around `knee` that stay below `limit`."""
        good_G = sse_G <= limit
        place = int(np.searchsorted(grid_G, knee))
        first = last = place
        while first > 0 and good_G[first - 1]:
            first -= 1
        while last < len(grid_G) and good_G[last]:
            last += 1
        if first == last:
            return knee, knee
        return min(float(grid_G[first]), knee), max(float(grid_G[last - 1]), knee)


def knee_grid(s_N: Array, low: float, high: float, *, size: int = _GRID) -> Array:
    """From `low` to `high`, every gap between points divided alike."""
    if low == high:
        return np.array([low])
    inside = s_N[(s_N > low) & (s_N < high)]
    if len(inside) > size:
        inside = inside[np.linspace(0, len(inside) - 1, size).round().astype(np.intp)]
    edges = np.concatenate([[low], inside, [high]])
    per_gap = int(np.clip(size // (len(edges) - 1), 1, _MOST_PER_GAP))
    steps = np.arange(per_gap) / per_gap
    grid_G = (edges[:-1, None] + np.diff(edges)[:, None] * steps).ravel()
    return np.append(grid_G, high)
