"""KL between two next-token distributions, from what leaves the last layers, in transformers' own final norm and head.

Names: N windows, L tokens of a window, T positions, D hidden size, V vocabulary.
"""

from __future__ import annotations

import torch

from workers.diagnosis.attribute.sums import Clusters, Sums
from workers.mitigation.objectives import logits
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.callbacks import CheckCancelled, never_cancelled

HEAD_TOKENS = 128


@torch.no_grad()
def divergence_of_logits(first_TV: torch.Tensor, second_TV: torch.Tensor) -> torch.Tensor:
    """(T): KL(softmax first ‖ softmax second) of two tensors of logits, nats.

    Σ p (e^r − 1 − r) with r = ln q − ln p: since Σp = Σq these are the usual values, and no summand is negative. Where
    r is large, and e^r may overflow, p e^r is q and loses nothing by being written so.
    """
    logp_TV, logq_TV = first_TV.float().log_softmax(-1), second_TV.float().log_softmax(-1)
    r_TV = logq_TV - logp_TV
    near_TV = logp_TV.exp() * (torch.expm1(r_TV.clamp(max=1.0)) - r_TV)
    far_TV = logq_TV.exp() - logp_TV.exp() * (1.0 + r_TV)
    found: torch.Tensor = torch.where(r_TV > 1.0, far_TV, near_TV).sum(-1)
    return found


@torch.no_grad()
def kl_sums(
    reference: tuple[Skeleton, torch.Tensor],
    candidate: tuple[Skeleton, torch.Tensor],
    clusters: Clusters,
    *,
    check_cancelled: CheckCancelled = never_cancelled,
) -> Sums:
    """KL(reference ‖ candidate) of the skeletons' heads on what left the last layers (N, L, D), nats per position. The
    last position of a window counts: it predicts a token too."""
    found = Sums(clusters, ())
    (ours, first_NLD), (theirs, second_NLD) = reference, candidate
    windows, length, _ = first_NLD.shape
    for window in range(windows):
        total = 0.0
        for start in range(0, length, HEAD_TOKENS):
            check_cancelled()
            part = slice(start, start + HEAD_TOKENS)
            first_TV = logits(ours, first_NLD[window, part].to(ours.dtype))
            second_TV = logits(theirs, second_NLD[window, part].to(theirs.dtype))
            total += float(divergence_of_logits(first_TV, second_TV).sum(dtype=torch.float64))
        found.add(window, [total], [length])
    return found
