"""What is differentiated: sums over positions, as functions of what leaves a model's last block.

Names: N windows, L tokens of a window, T positions, D hidden size, V vocabulary.
"""

from typing import Protocol

import torch

from app.contracts.errors import ErrorCode, HemostatError
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.walk import Activations

# Positions whose logits are in memory at once: few, so that the buffers stay on the heap. Larger ones are mapped and
# unmapped at every use, which takes as long as the arithmetic.
HEAD_TOKENS = 64


class Objective(Protocol):
    """A sum over positions, as a function of what leaves the last block."""

    def gradient(self, start: int, hidden_NLD: torch.Tensor) -> torch.Tensor:
        """Its gradient with respect to the hidden states (n, L, D) of the windows from `start` on."""


def logits(skeleton: Skeleton, hidden_TD: torch.Tensor) -> torch.Tensor:
    """(T, V) float32 logits of what leaves the last block: final norm, head, and what the architecture does to them."""
    norm, head = skeleton.head()
    logits_TV: torch.Tensor = head(norm(hidden_TD)).to(torch.float32)
    over = getattr(skeleton.config, "logits_scaling", None)
    if over is not None:
        logits_TV = logits_TV / over
    cap = getattr(skeleton.config, "final_logit_softcapping", None)
    return logits_TV if cap is None else cap * torch.tanh(logits_TV / cap)


class OwnLabels:
    """Σ_t log p(y_t), y_t drawn from the model's own distribution: the objective whose squared gradients are Fisher's.

    Labels depend on the seed and on the position of the window in the text alone. `gradient` raises
    `HemostatError(ACTIVATIONS_NOT_FINITE)` where logits are not finite.
    """

    def __init__(self, skeleton: Skeleton, seed: int) -> None:
        self._skeleton, self._seed = skeleton, seed

    def gradient(self, start: int, hidden_NLD: torch.Tensor) -> torch.Tensor:
        """See `Objective`."""
        found = torch.empty_like(hidden_NLD)
        for window, hidden_LD in enumerate(hidden_NLD):
            draws = torch.Generator().manual_seed((self._seed * 1_000_003 + start + window) % 2**63)
            for first in range(0, len(hidden_LD), HEAD_TOKENS):
                part = slice(first, first + HEAD_TOKENS)
                leaf_TD = hidden_LD[part].detach().requires_grad_(True)
                with torch.enable_grad():
                    logits_TV = logits(self._skeleton, leaf_TD)
                    whole_T = logits_TV.logsumexp(-1)
                    if not bool(torch.isfinite(whole_T).all()):
                        raise HemostatError(
                            ErrorCode.ACTIVATIONS_NOT_FINITE,
                            "the logits are NaN or infinite on the calibration text",
                            hint="the model overflows in its dtype in its final norm or head",
                        )
                    with torch.no_grad():
                        labels_T1 = torch.multinomial(logits_TV.softmax(-1), 1, generator=draws)
                    total = (logits_TV.gather(-1, labels_T1).squeeze(-1) - whole_T).sum()
                    (found[window, part],) = torch.autograd.grad(total, leaf_TD)
        return found


class FromReference:
    """Σ_t KL(reference ‖ model) in nats. `total` is its value so far.

    `reference`: what leaves the reference's last block on the same windows; `teacher`: its skeleton, for norm and head.
    """

    def __init__(self, skeleton: Skeleton, reference: Activations, teacher: Skeleton) -> None:
        self._skeleton, self._reference, self._teacher = skeleton, reference, teacher
        self.total = 0.0

    def gradient(self, start: int, hidden_NLD: torch.Tensor) -> torch.Tensor:
        """See `Objective`."""
        flat_TD = hidden_NLD.reshape(-1, hidden_NLD.shape[-1])
        reference_TD = self._reference.read(start, start + len(hidden_NLD)).reshape(flat_TD.shape)
        found_TD = torch.empty_like(flat_TD)
        for first in range(0, len(flat_TD), HEAD_TOKENS):
            part = slice(first, first + HEAD_TOKENS)
            leaf_TD = flat_TD[part].detach().requires_grad_(True)
            with torch.enable_grad():
                total = divergence(self._skeleton, leaf_TD, self._teacher, reference_TD[part]).sum()
                (found_TD[part],) = torch.autograd.grad(total, leaf_TD)
            self.total += float(total.detach())
        return found_TD.reshape(hidden_NLD.shape)


def divergence(
    skeleton: Skeleton, hidden_TD: torch.Tensor, teacher: Skeleton, reference_TD: torch.Tensor
) -> torch.Tensor:
    """(T) KL(reference ‖ model) in nats a position, differentiable in `hidden_TD`; the reference is a constant."""
    with torch.no_grad():
        reference_TV = logits(teacher, reference_TD).log_softmax(-1)
        probability_TV = reference_TV.exp()
        entropy_T = (probability_TV * reference_TV).sum(-1)
    return entropy_T - (probability_TV * logits(skeleton, hidden_TD).log_softmax(-1)).sum(-1)
