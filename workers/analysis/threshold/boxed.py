"""Linear least squares under box bounds, exact, for a whole stack of designs and many right-hand sides at once.

The problem min ‖y - Xθ‖² with l ≤ θ ≤ u is convex. Its solution is on a face of the box: some coefficients rest on
a bound, the others solve the ordinary problem. With the handful of coefficients that a curve has, every face can be
tried: the best *feasible* of the faces' ordinary solutions is the constrained solution. Where a face's columns are
dependent its shortest solution is tried, and a face with one coefficient less has the rest.

scipy's `lsq_linear` solves one problem in about a millisecond; a profile over the knee under a bootstrap needs a
hundred thousand. Tests compare the two.

Shapes: G designs, N points, K coefficients, B right-hand sides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Columns have unit length; a direction shorter than this share of the longest is a dependency of columns.
_RANK_TOLERANCE = 1e-11
# Overstepping a bound by so much, relative to the bound's size or to 1, is rounding.
_BOUND_TOLERANCE = 1e-9


@dataclass(frozen=True)
class _Face:
    """One choice of which coefficients are free and where the others rest."""

    free: tuple[int, ...]
    fixed: tuple[int, ...]
    values: Array  # of the fixed coefficients
    basis_GKR: Array  # orthonormal basis of the free columns' span; dependent directions are zero
    inverse_GRR: Array  # from coordinates in that basis to the free coefficients


class BoxedDesigns:
    """A stack of designs `design_GNK` with common bounds `lower_K`, `upper_K` (±inf is open; equal bounds fix)."""

    def __init__(self, design_GNK: Array, lower_K: Array, upper_K: Array) -> None:
        if (lower_K > upper_K).any():
            raise ValueError("a lower bound is above its upper bound")
        self.design_GNK, self.lower_K, self.upper_K = design_GNK, lower_K, upper_K
        # In an orthonormal basis of all columns every face is a problem of K rows, however many points there are.
        self._span_GNK, self._columns_GKK = np.linalg.qr(design_GNK)
        self._faces = list(self._make_faces())

    def _make_faces(self) -> Iterator[_Face]:
        lower_K, upper_K = self.lower_K, self.upper_K
        count = len(lower_K)
        rests = [sorted({float(v) for v in (lower_K[k], upper_K[k]) if np.isfinite(v)}) for k in range(count)]
        movable = [k for k in range(count) if lower_K[k] < upper_K[k]]
        for size in range(len(movable), -1, -1):
            for free in combinations(movable, size):
                fixed = tuple(k for k in range(count) if k not in free)
                if not all(rests[k] for k in fixed):
                    continue
                basis_GKR, inverse_GRR = _decompose(self._columns_GKK[:, :, list(free)])
                for values in product(*(rests[k] for k in fixed)):
                    yield _Face(free, fixed, np.array(values), basis_GKR, inverse_GRR)

    def sse(self, y_BN: Array) -> Array:
        """Least sums of squared residuals, (G, B)."""
        best_GB = np.full((len(self.design_GNK), len(y_BN)), np.inf)
        inner_GKB, outer_GB = self._project(y_BN)
        for face in self._faces:
            sse_GB, inside_GB, _ = self._try(face, inner_GKB)
            np.minimum(best_GB, np.where(inside_GB, sse_GB, np.inf), out=best_GB)
        return np.asarray(np.maximum(best_GB, 0.0) + outer_GB)

    def solve(self, y_N: Array) -> tuple[Array, Array]:
        """Coefficients (G, K) and sums of squared residuals (G,) for one right-hand side."""
        designs, _, count = self.design_GNK.shape
        best_G, coefficient_GK = np.full(designs, np.inf), np.zeros((designs, count))
        inner_GKB, _ = self._project(y_N[None])
        for face in self._faces:
            _, inside_GB, free_GRB = self._try(face, inner_GKB)
            trial_GK = np.empty((designs, count))
            trial_GK[:, list(face.free)] = free_GRB[:, :, 0]
            trial_GK[:, list(face.fixed)] = face.values
            np.clip(trial_GK, self.lower_K, self.upper_K, out=trial_GK)
            sse_G = ((y_N - np.einsum("gnk,gk->gn", self.design_GNK, trial_GK)) ** 2).sum(axis=1)
            better_G = inside_GB[:, 0] & (sse_G < best_G)
            best_G[better_G], coefficient_GK[better_G] = sse_G[better_G], trial_GK[better_G]
        return coefficient_GK, best_G

    def best(self, y_BN: Array) -> tuple[NDArray[np.intp], Array, Array]:
        """For each right-hand side the best design (B,), its coefficients (B, K), its sum of squared residuals (B,)."""
        count = len(y_BN)
        every = np.arange(count)
        sse_B, design_B = np.full(count, np.inf), np.zeros(count, dtype=np.intp)
        coefficient_BK = np.zeros((count, len(self.lower_K)))
        inner_GKB, outer_GB = self._project(y_BN)
        for face in self._faces:
            sse_GB, inside_GB, free_GRB = self._try(face, inner_GKB)
            sse_GB = np.where(inside_GB, np.maximum(sse_GB, 0.0) + outer_GB, np.inf)
            winner_B = sse_GB.argmin(axis=0)
            least_B = sse_GB[winner_B, every]
            better_B = least_B < sse_B
            sse_B[better_B], design_B[better_B] = least_B[better_B], winner_B[better_B]
            coefficient_BK[np.ix_(better_B, list(face.free))] = free_GRB[winner_B, :, every][better_B]
            coefficient_BK[np.ix_(better_B, list(face.fixed))] = face.values
        np.clip(coefficient_BK, self.lower_K, self.upper_K, out=coefficient_BK)
        return design_B, coefficient_BK, sse_B

    def _project(self, y_BN: Array) -> tuple[Array, Array]:
        """Coordinates of right-hand sides in the designs' spans (G, K, B), squares of what is outside (G, B)."""
        inner_GKB = np.swapaxes(self._span_GNK, 1, 2) @ y_BN.T
        outer_GB = (y_BN**2).sum(axis=1) - (inner_GKB**2).sum(axis=1)
        return inner_GKB, np.maximum(outer_GB, 0.0)

    def _try(self, face: _Face, inner_GKB: Array) -> tuple[Array, NDArray[np.bool_], Array]:
        """The ordinary solution on a face: squares left in the span (G, B), feasible or not, coefficients (G, R, B)."""
        if face.values.any():
            rest_GK = self._columns_GKK[:, :, list(face.fixed)] @ face.values
            inner_GKB = inner_GKB - rest_GK[:, :, None]
        coordinate_GRB = np.swapaxes(face.basis_GKR, 1, 2) @ inner_GKB
        sse_GB = (inner_GKB**2).sum(axis=1) - (coordinate_GRB**2).sum(axis=1)
        free_GRB = face.inverse_GRR @ coordinate_GRB
        inside_GB = np.ones(sse_GB.shape, dtype=bool)
        for row, k in enumerate(face.free):
            for bound, sign in ((self.lower_K[k], 1.0), (self.upper_K[k], -1.0)):
                if np.isfinite(bound):
                    inside_GB &= sign * (free_GRB[:, row] - bound) >= -_BOUND_TOLERANCE * max(1.0, abs(bound))
        return sse_GB, inside_GB, free_GRB


def _decompose(columns_GNR: Array) -> tuple[Array, Array]:
    """Orthonormal basis of each span, and the map from coordinates in it to coefficients of the columns."""
    length_GR = np.sqrt((columns_GNR**2).sum(axis=1))
    length_GR[length_GR == 0] = 1.0
    left_GNR, size_GR, right_GRR = np.linalg.svd(columns_GNR / length_GR[:, None, :], full_matrices=False)
    rank_GR = size_GR > _RANK_TOLERANCE * size_GR.max(axis=1, keepdims=True, initial=0.0)
    inverse_size_GR = np.where(rank_GR, 1.0 / np.where(rank_GR, size_GR, 1.0), 0.0)
    inverse_GRR = np.swapaxes(right_GRR, 1, 2) * inverse_size_GR[:, None, :] / length_GR[:, :, None]
    return left_GNR * rank_GR[:, None, :], inverse_GRR
