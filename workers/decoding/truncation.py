"""Which tokens a sampler may take, and the distribution that is left: temperature, top-k, top-p, min-p, eta, typical.

Temperature comes first, in each of them; then tokens go, and the rest is scaled to one. Where tokens tie at a border,
the lower ids stay, for both models alike. A row never loses every token, and only typical sampling may drop the most
probable one.

Sources: nucleus sampling, Holtzman et al. 2020 (arXiv 1904.09751). Top-k, Fan et al. 2018 (arXiv 1805.04833). Min-p,
Nguyen et al. 2024 (arXiv 2407.01082). Eta, Hewitt et al. 2022 (arXiv 2210.15191). Typical, Meister et al. 2023 (arXiv
2202.00666).

Names: R rows, V vocabulary, C the candidates that are put in order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch

from app.contracts.decoding import Eta, MinP, Shaping, TemperatureSampling, TopK, TopP, Typical

# The order of all tokens is seldom asked for: so many of the most probable ones hold the mass in nearly every row.
FEW: Final = 1024


def shaped(logits_RV: torch.Tensor, shaping: Shaping) -> torch.Tensor:
    """(R, V) probabilities after `shaping`, in the logits' dtype; tokens that went have exactly 0."""
    return kept(probabilities(logits_RV, shaping.temperature), shaping)


def probabilities(logits_RV: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """softmax(logits / temperature)."""
    return (logits_RV / temperature).softmax(1)


def kept(p_RV: torch.Tensor, shaping: Shaping) -> torch.Tensor:
    """`p_RV`, a distribution after temperature, without the tokens that go, scaled to one."""
    match shaping:
        case TemperatureSampling():
            return p_RV
        case TopK():
            left_RV = top_k(p_RV, shaping.k)
        case TopP():
            left_RV = top_p(p_RV, shaping.p)
        case MinP():
            left_RV = min_p(p_RV, shaping.p)
        case Eta():
            left_RV = eta(p_RV, shaping.epsilon)
        case Typical():
            left_RV = typical(p_RV, shaping.mass)
    return left_RV / left_RV.sum(1, keepdim=True)


def top_k(p_RV: torch.Tensor, k: int) -> torch.Tensor:
    """The k most probable tokens' probabilities, 0 for the others; not scaled."""
    if k >= p_RV.shape[1]:
        return p_RV

    def stays(ordered_RC: torch.Tensor) -> torch.Tensor:
        return (torch.arange(ordered_RC.shape[1], device=ordered_RC.device) < k).expand_as(ordered_RC)

    return _first(p_RV, -p_RV, stays, least=k)


def top_p(p_RV: torch.Tensor, mass: float) -> torch.Tensor:
    """The fewest most probable tokens that together have `mass`, 0 for the others; not scaled."""
    if mass >= 1:
        return p_RV
    return _until(p_RV, -p_RV, mass)


def min_p(p_RV: torch.Tensor, share: float) -> torch.Tensor:
    """Tokens of at least `share` times the largest probability, 0 for the others; not scaled."""
    return p_RV.where(p_RV >= share * p_RV.amax(1, keepdim=True), 0)


def eta(p_RV: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Tokens of at least min(ε, √ε·e^−H), H the entropy in nats, and the most probable one; not scaled."""
    entropy_R1 = -torch.special.xlogy(p_RV, p_RV).sum(1, keepdim=True)
    least_R1 = (math.sqrt(epsilon) * (-entropy_R1).exp()).clamp(max=epsilon)
    return p_RV.where(p_RV >= torch.minimum(least_R1, p_RV.amax(1, keepdim=True)), 0)


def typical(p_RV: torch.Tensor, mass: float) -> torch.Tensor:
    """The tokens nearest to the entropy by |−ln p − H| that together have `mass`, 0 for the others; not scaled."""
    entropy_R1 = -torch.special.xlogy(p_RV, p_RV).sum(1, keepdim=True)
    return _until(p_RV, (-p_RV.log() - entropy_R1).abs(), mass)


def _until(p_RV: torch.Tensor, rank_RV: torch.Tensor, mass: float) -> torch.Tensor:
    """Tokens of ascending rank until their mass reaches `mass`: each whose predecessors have less."""

    def stays(ordered_RC: torch.Tensor) -> torch.Tensor:
        before_RC = ordered_RC.double().cumsum(1).roll(1, 1)
        before_RC[:, 0] = -1.0
        return before_RC < mass

    return _first(p_RV, rank_RV, stays)


def _first(
    p_RV: torch.Tensor, rank_RV: torch.Tensor, stays: Callable[[torch.Tensor], torch.Tensor], *, least: int = 0
) -> torch.Tensor:
    """Keeps a head of each row's tokens in ascending order of rank, ties by id. `stays` shows from ordered
    probabilities (R, C) which stay. Rows of which a few tokens are not enough are put in order whole."""
    rows, vocabulary = p_RV.shape
    few = min(vocabulary, max(FEW, least + 1))
    made_RV = torch.zeros_like(p_RV)
    whole_R = torch.zeros(rows, dtype=torch.bool)
    if few < vocabulary:
        index_RC = rank_RV.topk(few, dim=1, largest=False).indices.sort(1).values
        index_RC, stay_RC = _ordered(p_RV, rank_RV, index_RC, stays)
        # The head must end before the last of the few, or more tokens, or ties with it, may belong to it.
        edge_R1 = rank_RV.gather(1, index_RC[:, -1:])
        whole_R = (stay_RC & (rank_RV.gather(1, index_RC) == edge_R1)).any(1).cpu()
        made_RV.scatter_(1, index_RC, p_RV.gather(1, index_RC).where(stay_RC, 0))
    else:
        whole_R[:] = True
    if bool(whole_R.any()):
        at = whole_R.nonzero()[:, 0].to(p_RV.device)
        p, rank = p_RV[at], rank_RV[at]
        index_RC, stay_RC = _ordered(p, rank, torch.arange(vocabulary, device=p.device).expand_as(p), stays)
        made_RV[at] = torch.zeros_like(p).scatter_(1, index_RC, p.gather(1, index_RC).where(stay_RC, 0))
    return made_RV


def _ordered(
    p_RV: torch.Tensor,
    rank_RV: torch.Tensor,
    index_RC: torch.Tensor,
    stays: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """`index_RC`, whose ids ascend, in the order of rank, and which of them stay."""
    order_RC = rank_RV.gather(1, index_RC).sort(dim=1, stable=True).indices
    index_RC = index_RC.gather(1, order_RC)
    return index_RC, stays(p_RV.gather(1, index_RC))
