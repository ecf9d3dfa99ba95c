"""An affine map from the states of one model to those of another on the same tokens, by ridge regression.

Minimized is Σ_t ‖y_t − ŷ_t‖² / ‖y_t‖² + λ ‖W‖² over tokens t, ŷ = (x − x̄) W + ȳ, with x̄ and ȳ the means by the same
weights. That the least-squares map ("direct matching") is the one to compare representations by, and not one that is
trained on the loss behind it, is from Csiszárik et al. (2110.14633) and Balogh & Jelasity (2412.11299). Ours are the
weights: what reads a residual stream norms each token's state first, so that an error counts by what share of the state
it is; without them the first token of a window, whose state is often hundreds of times larger, would decide alone.

λ is the one of a grid whose error by generalized cross-validation is least (Golub, Heath & Wahba, Technometrics 21,
1979), GCV(λ) = (RSS/T) / (1 − df/T)² with df = 1 + Σ_i s_i / (s_i + λ), s the eigenvalues of the source's weighted
covariance. It lets the map be of fewer tokens than the source has dimensions.

Names: T tokens, S, U dimensions of source and target.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from workers.surgery.callbacks import CheckCancelled, never_cancelled

# λ over the mean eigenvalue. Directions that no token has are in the states as the rounding of float32: a smaller λ
# would let the map make something of them.
GRID = tuple(10.0**power for power in range(-7, 3))


@dataclass(frozen=True)
class AffineMap:
    """ŷ = (x − `source_S`) `weight_SU` + `target_U`, all in float64."""

    source_S: torch.Tensor
    weight_SU: torch.Tensor
    target_U: torch.Tensor

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """(…, U) of (…, S), in the dtype that they have."""
        found: torch.Tensor = (states.to(torch.float64) - self.source_S) @ self.weight_SU + self.target_U
        return found.to(states.dtype)


def fit(
    pairs: Iterable[tuple[torch.Tensor, torch.Tensor]], *, check_cancelled: CheckCancelled = never_cancelled
) -> AffineMap:
    """The map from x (T, S) to y (T, U), of batches of tokens, at least one; a token whose y is 0 does not count.
    Memory holds matrices of S · S and S · U whatever T is. Raises ValueError where there is no batch, and what
    `check_cancelled` raises, which is asked before every batch's products and before the eigenvalues, which take
    longest."""
    sums = _Sums()
    for x_TS, y_TU in pairs:
        check_cancelled()
        sums.add(x_TS.to(torch.float64), y_TU.to(torch.float64))
    check_cancelled()
    return sums.solved()


class _Sums:
    """Weighted moments of what was seen."""

    def __init__(self) -> None:
        self._tokens = 0
        self._weight, self._squares = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        self._moments: tuple[torch.Tensor, ...] | None = None

    def add(self, x_TS: torch.Tensor, y_TU: torch.Tensor) -> None:
        """A batch."""
        size_T = y_TU.square().sum(-1)
        weight_T = torch.where(size_T > 0, 1.0 / size_T.clamp_min(1e-300), torch.zeros_like(size_T))
        weighted_TS = x_TS * weight_T[:, None]
        found = weight_T @ x_TS, weight_T @ y_TU, weighted_TS.T @ x_TS, weighted_TS.T @ y_TU
        if self._moments is None:
            self._moments = found
        else:
            for kept, more in zip(self._moments, found, strict=True):
                kept.add_(more)
        self._tokens += int((size_T > 0).sum())
        self._weight += weight_T.sum()
        self._squares += (weight_T * size_T).sum()

    def solved(self) -> AffineMap:
        """The map at the best λ of the grid."""
        if self._moments is None:
            raise ValueError("a map has to be fitted on some tokens, and there are none")
        x_S, y_U, square_SS, cross_SU = self._moments
        weight = self._weight.clamp_min(1e-300)
        square_SS -= torch.outer(x_S, x_S) / weight
        cross_SU -= torch.outer(x_S, y_U) / weight
        spread = float(self._squares - y_U.square().sum() / weight)
        values_S, vectors_SS = torch.linalg.eigh(square_SS)
        values_S = values_S.clamp_min(0.0)
        turned_SU = vectors_SS.T @ cross_SU
        energy_S = turned_SU.square().sum(1)
        mean = float(values_S.mean())
        ridge = min(GRID, key=lambda one: self._gcv(values_S, energy_S, spread, one * mean))
        shrunk_SU = turned_SU / (values_S + max(ridge * mean, 1e-300))[:, None]
        return AffineMap(x_S / weight, vectors_SS @ shrunk_SU, y_U / weight)

    def _gcv(self, values_S: torch.Tensor, energy_S: torch.Tensor, spread: float, ridge: float) -> float:
        """GCV(λ), up to the factor T that all have."""
        over_S = values_S + max(ridge, 1e-300)
        left = spread - float((energy_S * (over_S + ridge) / over_S.square()).sum())
        free = self._tokens - 1 - float((values_S / over_S).sum())
        return max(left, 0.0) / free**2 if free > 0 else float("inf")
