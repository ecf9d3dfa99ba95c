"""Forward KL from normed final hidden states, and its gradient: the logits of a few positions at a time, never a tape.

KL(p‖q) = Σ p (ln p − ln q) over the vocabulary; its gradient by q's logits is q − p. Where both models have one head,
q's logits are p's minus W·(h_ref − h): the difference is rounded, not the two large numbers that it is the
difference of.

Names: T positions, D hidden size, V vocabulary.
"""

import torch

from workers.distributions.head import Head
from workers.products import product

# Positions whose logits are in memory at once: few, so that the buffers stay on the heap. Larger ones are mapped and
# unmapped at every use, which takes as long as the arithmetic.
POSITIONS = 64


class Divergence:
    """KL(reference ‖ candidate) of normed final hidden states under the two heads: what every training here lowers."""

    def __init__(self, reference: Head, candidate: Head) -> None:
        self._reference, self._candidate = reference, candidate
        self._same = reference.same_matrix(candidate) and reference.bias_V is None and candidate.bias_V is None

    @torch.no_grad()
    def of(self, reference_TD: torch.Tensor, hidden_TD: torch.Tensor) -> tuple[float, torch.Tensor]:
        """(sum over the positions in nats, its gradient by `hidden_TD` in that one's dtype)."""
        total = 0.0
        gradient_TD = torch.empty_like(hidden_TD)
        for first in range(0, len(hidden_TD), POSITIONS):
            part = slice(first, first + POSITIONS)
            value, gradient_TD[part] = self._part(reference_TD[part], hidden_TD[part])
            total += value
        return total, gradient_TD

    def _part(self, reference_TD: torch.Tensor, hidden_TD: torch.Tensor) -> tuple[float, torch.Tensor]:
        ours = self._candidate
        first_TV = _product(self._reference, reference_TD)
        if self._same:
            change_TD = (reference_TD - hidden_TD).to(ours.weight_VD.dtype)
            second_TV = first_TV - product(change_TD, ours.weight_VD.T).float()
        else:
            second_TV = _product(ours, hidden_TD)
        logp_TV = torch.log_softmax(_treated(self._reference, first_TV), dim=-1)
        logq_TV = torch.log_softmax(_treated(ours, second_TV), dim=-1)
        p_TV = logp_TV.exp()
        value = float((p_TV * (logp_TV - logq_TV)).sum())
        slope_TV = logq_TV.exp_().sub_(p_TV).mul_(ours.scale)
        if ours.softcap is not None:
            slope_TV *= 1 - torch.tanh(second_TV / ours.softcap).square()
        return value, product(slope_TV.to(ours.weight_VD.dtype), ours.weight_VD).to(hidden_TD.dtype)


def _product(head: Head, hidden_TD: torch.Tensor) -> torch.Tensor:
    logits_TV = product(hidden_TD.to(head.weight_VD.dtype), head.weight_VD.T).float()
    return logits_TV if head.bias_V is None else logits_TV + head.bias_V


def _treated(head: Head, logits_TV: torch.Tensor) -> torch.Tensor:
    if head.softcap is not None:
        logits_TV = head.softcap * torch.tanh(logits_TV / head.softcap)
    return logits_TV * head.scale
