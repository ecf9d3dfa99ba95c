"""Linear CKA between the layers of two models of any depth and width, on the same tokens.

CKA(X, Y) = HSIC(K, M) / √(HSIC(K, K) · HSIC(M, M)) with the Gram matrices K = X Xᵀ, M = Y Yᵀ over tokens. The source
is Kornblith et al. (1905.00414). HSIC is the unbiased estimator of Song et al. (JMLR 2012), added up over windows
before the ratio is taken (Nguyen et al., 2010.15327). The biased one calls any two representations of few tokens alike.
The unbiased one is an inner product of
U-centred Gram matrices (Székely & Rizzo, 1310.2926), so that all pairs of borders are one matrix product.

Two things of a layer are compared: what leaves it, and what it adds (what leaves − what enters). Neighbouring states of
a residual stream are nearly the same whatever the layers do; what is added distinguishes layers. The first token of a
window is left out: as an attention sink its state is often hundreds of times larger than any other and would decide
alone.

Names: N windows, K clusters, T tokens of a window, D hidden size, R, C layers of reference and candidate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from app.contracts.errors import ErrorCode, HemostatError
from workers.diagnosis.attribute.borders import Borders
from workers.diagnosis.attribute.sums import Clusters
from workers.surgery.callbacks import CheckCancelled, Progress, never_cancelled, no_progress

Array = NDArray[np.float64]
# Tokens of a window that are compared: the Gram matrices of all borders of a window are in memory at once.
MOST_TOKENS = 192
# The unbiased estimator divides by T − 3.
FEWEST_TOKENS = 5


@dataclass(frozen=True)
class HsicSums:
    """Sums of HSIC over the windows of each cluster: across the models (K, R, C), and of each with itself."""

    cross_KRC: Array
    reference_KR: Array
    candidate_KC: Array

    def cka(self, weight_K: Array | None = None) -> Array:
        """(R, C), between 0 and 1; 0 if one of the two does not vary. `weight_K`: how often each cluster counts."""
        weight_K = np.ones(len(self.cross_KRC)) if weight_K is None else weight_K
        cross_RC = np.einsum("k,krc->rc", weight_K, self.cross_KRC)
        size_RC = np.sqrt(np.outer(_positive(weight_K @ self.reference_KR), _positive(weight_K @ self.candidate_KC)))
        found: Array = np.divide(cross_RC, size_RC, out=np.zeros_like(cross_RC), where=size_RC > 0)
        return np.clip(found, 0.0, 1.0)


@dataclass(frozen=True)
class Similarity:
    """Of the states at all borders (R + 1, C + 1), and of what all layers add (R, C)."""

    states: HsicSums
    added: HsicSums


def u_centred(gram_TT: torch.Tensor) -> torch.Tensor:
    """The U-centred matrix: rows and columns add up to 0, the diagonal is 0. Its inner product with another one,
    divided by T (T − 3), is the unbiased HSIC. Last two dimensions."""
    count = gram_TT.shape[-1]
    gram_TT = gram_TT - torch.diag_embed(gram_TT.diagonal(dim1=-2, dim2=-1))
    rows = gram_TT.sum(-1, keepdim=True) / (count - 2)
    whole = gram_TT.sum((-2, -1), keepdim=True) / ((count - 1) * (count - 2))
    centred = gram_TT - rows - rows.transpose(-2, -1) + whole
    return centred - torch.diag_embed(centred.diagonal(dim1=-2, dim2=-1))


def similarity(
    reference: Borders,
    candidate: Borders,
    clusters: Clusters,
    *,
    progress: Progress = no_progress,
    check_cancelled: CheckCancelled = never_cancelled,
) -> Similarity:
    """All pairs. One window at a time: memory holds a Gram matrix a border.

    Raises `HemostatError(INVALID_REQUEST)` if a window has fewer than six tokens.
    """
    windows, length = reference.runner.tokens_NL.shape
    if length - 1 < FEWEST_TOKENS:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"windows of {length} tokens are too short to compare layers",
            hint=f"give windows of {FEWEST_TOKENS + 1} tokens or more",
            pointer="/window",
        )
    tokens = np.unique(np.linspace(1, length - 1, min(length - 1, MOST_TOKENS)).round().astype(int))
    chosen = torch.from_numpy(tokens).to(reference.runner.skeleton.device)
    sums: list[HsicSums] = [_empty(clusters.count, len(reference) - more, len(candidate) - more) for more in (0, 1)]
    for window in range(windows):
        check_cancelled()
        progress("similarity", window, windows)
        first, second = (_states(borders, window, chosen) for borders in (reference, candidate))
        cluster = int(clusters.of_window_N[window])
        for found, ours, theirs in ((sums[0], first, second), (sums[1], first.diff(dim=0), second.diff(dim=0))):
            _add(found, cluster, _grams(ours), _grams(theirs), len(chosen))
    progress("similarity", windows, windows)
    return Similarity(*sums)


def _states(borders: Borders, window: int, chosen: torch.Tensor) -> torch.Tensor:
    """(borders, T, D) float32."""
    return torch.stack(
        [borders.read(border, window, window + 1)[0, chosen].to(torch.float32) for border in range(len(borders))]
    )


def _grams(states: torch.Tensor) -> Array:
    """(layers, T·T): U-centred Gram matrices, in float64."""
    # centred first, which U-centring does not see, so that no difference of large numbers is taken
    states = (states - states.mean(1, keepdim=True)).to(torch.float64)
    found: Array = u_centred(states @ states.transpose(1, 2)).flatten(1).cpu().numpy()
    return found


def _add(sums: HsicSums, cluster: int, ours: Array, theirs: Array, tokens: int) -> None:
    size = tokens * (tokens - 3)
    sums.cross_KRC[cluster] += ours @ theirs.T / size
    sums.reference_KR[cluster] += np.square(ours).sum(1) / size
    sums.candidate_KC[cluster] += np.square(theirs).sum(1) / size


def _empty(clusters: int, rows: int, columns: int) -> HsicSums:
    return HsicSums(np.zeros((clusters, rows, columns)), np.zeros((clusters, rows)), np.zeros((clusters, columns)))


def _positive(values: Array) -> Array:
    return np.maximum(values, 0.0)
