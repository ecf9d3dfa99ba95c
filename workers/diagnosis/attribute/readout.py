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

    Σ p (e^r − 1 − r) with r = ln q − ln p: since Σp = Σq these are the usual values, and no summand is negative.
    """
    logp_TV, logq_TV = first_TV.float().log_softmax(-1), second_TV.float().log_softmax(-1)
    r_TV = logq_TV - logp_TV
    found: torch.Tensor = (logp_TV.exp() * (torch.expm1(r_TV) - r_TV)).sum(-1)
    return found


@torch.no_grad()
def kl_sums(
    reference: tuple[Skeleton, torch.Tensor],
    candidate: tuple[Skeleton, torch.Tensor],
    clusters: Clusters,
    *,
    check_cancelled: CheckCancelled = never_cancelled,
) -> Sums:
    """KL(reference ‖ candidate), of the skeletons' heads on what left the last layers (N, L, D): nats a position; the
    last position of a window counts, it too predicts a token."""
    found = Sums(clusters, ())
    (ours, first_NLD), (theirs, second_NLD) = reference, candidate
    for window in range(len(first_NLD)):
        total = 0.0
        for start in range(0, first_NLD.shape[1], HEAD_TOKENS):
            check_cancelled()
            part = slice(start, start + HEAD_TOKENS)
            total += float(
                divergence_of_logits(
                    logits(ours, first_NLD[window, part].to(ours.dtype)),
                    logits(theirs, second_NLD[window, part].to(theirs.dtype)),
                ).sum(dtype=torch.float64)
            )
        found.add(window, [total], [first_NLD.shape[1]])
    return found
