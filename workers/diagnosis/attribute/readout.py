"""KL between two next-token distributions, from what leaves the last layers, in transformers' own final norm and head.

Names: N windows, L tokens of a window, T positions, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import torch

from workers.diagnosis.attribute.sums import Clusters, Sums
from workers.mitigation.objectives import logits
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.callbacks import CheckCancelled, never_cancelled

HEAD_TOKENS = 128
NO_KINDS: Final[Mapping[str, torch.Tensor]] = {}


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


# Gives (T, D) of what left the last layer, of some tokens of a window.
States = Callable[[int, slice], torch.Tensor]


def states_of(hidden_NLD: torch.Tensor) -> States:
    """Of a tensor."""
    return lambda window, tokens: hidden_NLD[window, tokens]


@torch.no_grad()
def kl_sums(
    reference: tuple[Skeleton, torch.Tensor],
    candidates: Sequence[tuple[Skeleton, States]],
    clusters: Clusters,
    *,
    kinds: Mapping[str, torch.Tensor] = NO_KINDS,
    check_cancelled: CheckCancelled = never_cancelled,
) -> list[Sums]:
    """KL(reference ‖ each candidate), of the skeletons' heads on what left the last layers: nats a position; the last
    position of a window counts, it too predicts a token. The reference's logits (of (N, L, D) states) are made once for
    all of them. `kinds`: masks (N, L) of positions by the name of a kind, over each of which it is summed, too."""
    found = [Sums(clusters, (), {name: Sums(clusters, ()) for name in kinds}) for _ in candidates]
    ours, first_NLD = reference
    windows, length, _ = first_NLD.shape
    for window in range(windows):
        totals = np.zeros((len(candidates), 1 + len(kinds)))
        for start in range(0, length, HEAD_TOKENS):
            part = slice(start, start + HEAD_TOKENS)
            first_TV = logits(ours, first_NLD[window, part].to(ours.dtype))
            for index, (theirs, states) in enumerate(candidates):
                check_cancelled()
                second_TV = logits(theirs, states(window, part).to(theirs.dtype))
                kl_T = divergence_of_logits(first_TV, second_TV).to(torch.float64)
                totals[index] += [float(kl_T.sum()), *(float(kl_T[of[window, part]].sum()) for of in kinds.values())]
        for sums, (total, *by_kind) in zip(found, totals, strict=True):
            sums.add(window, [total], [length])
            for (name, of), summed in zip(kinds.items(), by_kind, strict=True):
                sums.by_kind[name].add(window, [summed], [int(of[window].sum())])
    return found
