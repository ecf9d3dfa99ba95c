"""What a request's temperature and truncation make of a model's logits.

The order is vLLM's: temperature, min-p, top-k, top-p, each over what the one before it left.

Names: T rows, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

# vLLM takes a lower temperature for greedy decoding.
GREEDY_BELOW = 1e-5
# A nucleus seldom holds more, and to sort a whole vocabulary takes longer than the rest together.
_NUCLEUS = 1024


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. `top_k` 0 or −1: no limit; `top_p` 1 and `min_p` 0: none."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is always taken."""
        return self.temperature < GREEDY_BELOW


def distribution(logits_TV: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Probabilities, float64 (T, V), each row summing to 1. Greedy: 1 at the first of the largest logits.

    A row with a logit that is not finite (−inf aside) becomes NaN.
    """
    if sampling.greedy:
        chosen_TV = torch.zeros(logits_TV.shape, dtype=torch.float64, device=logits_TV.device)
        chosen_TV.scatter_(1, logits_TV.argmax(1, keepdim=True), 1.0)
        broken_T = logits_TV.isnan().any(1) | logits_TV.eq(torch.inf).any(1)
        return chosen_TV.masked_fill_(broken_T[:, None], torch.nan)
    if 0 < sampling.top_k < logits_TV.shape[1]:
        # Before the rest, where it is cheap: what min-p keeps depends on the largest alone, which this one keeps.
        least_T1 = logits_TV.topk(sampling.top_k, 1).values[:, -1:]
        logits_TV = logits_TV.masked_fill(logits_TV < least_T1, -torch.inf)
    scaled_TV = logits_TV.double()
    if sampling.temperature != 1:
        scaled_TV = scaled_TV / sampling.temperature
    probabilities_TV = scaled_TV.softmax(1)
    if sampling.min_p > 0:
        least_T1 = sampling.min_p * probabilities_TV.amax(1, keepdim=True)
        probabilities_TV = _keep(probabilities_TV, probabilities_TV >= least_T1)
    if sampling.top_p < 1:
        probabilities_TV = _keep(probabilities_TV, _nucleus(probabilities_TV, sampling.top_p))
    return probabilities_TV


def _nucleus(probabilities_TV: torch.Tensor, top_p: float) -> torch.Tensor:
    """True at the most probable tokens that together reach `top_p`."""
    many = min(_NUCLEUS, probabilities_TV.shape[1])
    largest_TN, order_TN = probabilities_TV.topk(many, 1)
    if not bool((largest_TN.sum(1) >= top_p).all()):
        largest_TN, order_TN = probabilities_TV.sort(1, descending=True)
    before_TN = largest_TN.cumsum(1) - largest_TN
    return torch.zeros_like(probabilities_TV, dtype=torch.bool).scatter_(1, order_TN, before_TN < top_p)


def _keep(probabilities_TV: torch.Tensor, kept_TV: torch.Tensor) -> torch.Tensor:
    left_TV = torch.where(kept_TV, probabilities_TV, torch.zeros((), dtype=probabilities_TV.dtype))
    # A broken row keeps nothing of itself; it must not look like one that lost all.
    left_TV = torch.where(probabilities_TV.isnan(), probabilities_TV, left_TV)
    return left_TV / left_TV.sum(1, keepdim=True)
