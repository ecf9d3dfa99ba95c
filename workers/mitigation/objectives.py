"""What is differentiated: sums over positions, as functions of what leaves a model's last block.

Names: N windows, L tokens of a window, T positions, D hidden size, V vocabulary.
"""

from typing import Protocol

import torch

from app.contracts.errors import ErrorCode, HemostatError
from workers.distributions.head import Head
from workers.mitigation.divergence import POSITIONS, Divergence
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.walk import Activations


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


def head_of(skeleton: Skeleton) -> Head:
    """What `logits` does after the final norm, as a head."""
    weights = dict(skeleton.head()[1].named_parameters())
    over = getattr(skeleton.config, "logits_scaling", None) or 1.0
    cap = getattr(skeleton.config, "final_logit_softcapping", None)
    bias_V = weights.get("bias")
    return Head(
        weight_VD=weights["weight"].detach(),
        bias_V=None if bias_V is None else bias_V.detach().float(),
        scale=1.0 / over,
        # The cap acts on what is divided already.
        softcap=None if cap is None else cap * over,
        fingerprint="",
        architecture=skeleton.info.architecture,
    )


class OwnLabels:
    """Σ_t log p(y_t), y_t drawn from the model's own distribution: the objective whose squared gradients are Fisher's.

    Labels depend on the seed and on the position of the window in the text alone. `gradient` raises
    `HemostatError(ACTIVATIONS_NOT_FINITE)` if logits are not finite.
    """

    def __init__(self, skeleton: Skeleton, seed: int) -> None:
        self._skeleton, self._seed = skeleton, seed

    def gradient(self, start: int, hidden_NLD: torch.Tensor) -> torch.Tensor:
        """See `Objective`."""
        found = torch.empty_like(hidden_NLD)
        for window, hidden_LD in enumerate(hidden_NLD):
            draws = torch.Generator().manual_seed((self._seed * 1_000_003 + start + window) % 2**63)
            for first in range(0, len(hidden_LD), POSITIONS):
                part = slice(first, first + POSITIONS)
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
                        # As torch.multinomial draws, from numbers of the host: labels are the same on every device.
                        race_TV = torch.empty(logits_TV.shape, dtype=logits_TV.dtype, device="cpu")
                        race_TV = race_TV.exponential_(generator=draws).to(logits_TV.device)
                        labels_T1 = (logits_TV.softmax(-1) / race_TV).argmax(-1, keepdim=True)
                    total = (logits_TV.gather(-1, labels_T1).squeeze(-1) - whole_T).sum()
                    (found[window, part],) = torch.autograd.grad(total, leaf_TD)
        return found


class FromReference:
    """Σ_t KL(reference ‖ model) in nats. `total` is its value so far.

    `reference`: what leaves the reference's last block on the same windows; `teacher`: its skeleton, for norm and head.
    """

    def __init__(self, skeleton: Skeleton, reference: Activations, teacher: Skeleton) -> None:
        self._reference, self._norm, self._teacher_norm = reference, skeleton.norm(), teacher.norm()
        self._divergence = Divergence(head_of(teacher), head_of(skeleton))
        self.total = 0.0

    def gradient(self, start: int, hidden_NLD: torch.Tensor) -> torch.Tensor:
        """See `Objective`."""
        flat_TD = hidden_NLD.reshape(-1, hidden_NLD.shape[-1])
        reference_TD = self._reference.read(start, start + len(hidden_NLD)).reshape(flat_TD.shape)
        leaf_TD = flat_TD.detach().requires_grad_(True)
        with torch.no_grad():
            target_TD = self._teacher_norm(reference_TD)
        with torch.enable_grad():
            normed_TD = self._norm(leaf_TD)
        total, slope_TD = self._divergence.of(target_TD, normed_TD.detach())
        (found_TD,) = torch.autograd.grad(normed_TD, leaf_TD, slope_TD)
        self.total += total
        return found_TD.reshape(hidden_NLD.shape)
