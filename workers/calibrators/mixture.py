"""A few corrections, mixed by what is known of the row: damage differs between early and late, sure and unsure rows.

    g = softmax(f W)                                          gate over K experts, f the features of the row
    h' = h + ((h A) ∘ g) B + g C                              K low-rank maps of rank r each, A [D, K·r], B [K·r, D]
    logits' = exp(g s) · logits + g b                         s a log scale, b a bias of a few tokens, for each expert

The gate is computed once a hook from the row itself: in `apply_hidden` from the hidden state as it comes in. The logits
hook does not see that state, so its gate leaves the probe out and takes the exact entropy of the incoming logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import torch

from workers.calibrators.base import Base, require, shape
from workers.calibrators.features import PLAIN, features
from workers.calibrators.lowrank import add
from workers.calibrators.protocol import Parameter, RowContext

_NAMES = (
    "class_V",
    "probe_D",
    "probe_offset",
    "gate_FK",
    "down_DR",
    "up_RD",
    "shift_KD",
    "log_scale_K",
    "ids_I",
    "bias_KI",
)


class Mixture(Base):
    """K experts, rank r each: R = K·r columns of A, expert k owning columns k·r to (k+1)·r.

    `class_V` int8: token classes. `probe_D`, `probe_offset` []: the entropy estimate h·probe + offset, in nats.
    `gate_FK`, `shift_KD`, `log_scale_K`, `bias_KI` float32; `ids_I` int64, rising. Without a scale or a bias (all
    zero, or none) the logits are left alone.
    """

    KIND: ClassVar[str] = "mixture"

    def __init__(
        self,
        *,
        class_V: torch.Tensor,
        probe_D: torch.Tensor,
        probe_offset: torch.Tensor,
        gate_FK: torch.Tensor,
        down_DR: torch.Tensor,
        up_RD: torch.Tensor,
        shift_KD: torch.Tensor,
        log_scale_K: torch.Tensor,
        ids_I: torch.Tensor,
        bias_KI: torch.Tensor,
    ) -> None:
        require(
            gate_FK.ndim == 2 and gate_FK.shape[0] > PLAIN and gate_FK.shape[1] >= 1, f"gate of shape {shape(gate_FK)}"
        )
        experts = gate_FK.shape[1]
        classes = gate_FK.shape[0] - PLAIN
        require(down_DR.ndim == 2 and down_DR.shape == up_RD.T.shape, f"A {shape(down_DR)} and B {shape(up_RD)}")
        width, columns = down_DR.shape
        require(columns % experts == 0, f"{columns} columns do not divide among {experts} experts")
        require(
            tuple(probe_D.shape) == (width,)
            and probe_offset.ndim == 0
            and tuple(shift_KD.shape) == (experts, width)
            and tuple(log_scale_K.shape) == (experts,)
            and ids_I.ndim == 1
            and tuple(bias_KI.shape) == (experts, len(ids_I)),
            "probe, shift, scale or bias do not fit the gate and the maps",
        )
        require(class_V.dtype == torch.int8 and class_V.ndim == 1 and len(class_V) > 0, "token classes must be int8")
        require(int(class_V.amin()) >= 0 and int(class_V.amax()) < classes, f"a token class beyond {classes}")
        require(
            ids_I.dtype == torch.int64
            and bool((ids_I.diff() > 0).all())
            and (len(ids_I) == 0 or (int(ids_I[0]) >= 0 and int(ids_I[-1]) < len(class_V))),
            "token ids must rise and be of the vocabulary",
        )
        self.class_V, self.probe_D, self.probe_offset = class_V, probe_D, probe_offset
        self.gate_FK, self.down_DR, self.up_RD, self.shift_KD = gate_FK, down_DR, up_RD, shift_KD
        self.log_scale_K, self.ids_I, self.bias_KI = log_scale_K, ids_I, bias_KI
        self._scales = bool((log_scale_K != 0).any())
        self._biased = len(ids_I) > 0

    @property
    def hidden_size(self) -> int:
        """D."""
        return int(self.down_DR.shape[0])

    @property
    def vocabulary(self) -> int:
        """Number of tokens that have a class."""
        return len(self.class_V)

    @property
    def experts(self) -> int:
        """K."""
        return int(self.gate_FK.shape[1])

    def gate(self, entropy_T: torch.Tensor, context: RowContext) -> torch.Tensor:
        """g of rows, [T, K], of the dtype of `entropy_T`."""
        classes = self.gate_FK.shape[0] - PLAIN
        features_TF = features(entropy_T, context.position_T, context.token_T, self.class_V, classes)
        return torch.softmax(features_TF @ self.gate_FK.to(features_TF.dtype), dim=1)

    def apply_hidden(self, hidden_TD: torch.Tensor, context: RowContext) -> torch.Tensor:
        """h + ((h A) ∘ g) B + g C."""
        wide = torch.promote_types(hidden_TD.dtype, torch.float32)
        entropy_T = hidden_TD.to(wide) @ self.probe_D.to(wide) + self.probe_offset.to(wide)
        gate_TK = self.gate(entropy_T, context)
        rank = self.down_DR.shape[1] // self.experts
        within_TR = hidden_TD @ self.down_DR.to(hidden_TD.dtype)
        within_TR = (within_TR.to(wide) * gate_TK.repeat_interleave(rank, dim=1)).to(hidden_TD.dtype)
        change_TD = within_TR @ self.up_RD.to(hidden_TD.dtype)
        return add(hidden_TD, change_TD, gate_TK @ self.shift_KD.to(wide))

    def apply_logits(self, logits_TV: torch.Tensor, context: RowContext) -> torch.Tensor:
        """exp(g s) · logits + g b."""
        if not self._scales and not self._biased:
            return logits_TV
        wide_TV = logits_TV.to(torch.promote_types(logits_TV.dtype, torch.float32))
        gate_TK = self.gate(entropy(wide_TV), context)
        made_TV = wide_TV * (gate_TK @ self.log_scale_K.to(wide_TV.dtype)).exp()[:, None]
        if self._biased:
            made_TV = made_TV.index_add(1, self.ids_I, gate_TK @ self.bias_KI.to(wide_TV.dtype))
        return made_TV.to(logits_TV.dtype)

    def describe(self) -> Mapping[str, Parameter]:
        """Sizes."""
        return {
            "hidden_size": self.hidden_size,
            "vocabulary": self.vocabulary,
            "experts": self.experts,
            "rank": int(self.down_DR.shape[1]) // self.experts,
            "biased_tokens": len(self.ids_I),
        }

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """All of them."""
        return {name: getattr(self, name) for name in _NAMES}

    @classmethod
    def restore(cls, parameters: Mapping[str, Parameter], tensors: Mapping[str, torch.Tensor]) -> Self:
        """From its tensors."""
        made = cls(**{name: tensors[name] for name in _NAMES})
        require(dict(made.describe()) == dict(parameters), "the tensors have not the sizes of the description")
        return made

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Self:
        """The same on another device, A and B in `dtype`; what is small stays as it is."""
        moved = {name: tensor.to(device) for name, tensor in self.tensors().items()}
        moved["down_DR"] = moved["down_DR"].to(dtype or moved["down_DR"].dtype)
        moved["up_RD"] = moved["up_RD"].to(dtype or moved["up_RD"].dtype)
        return type(self)(**moved)


def entropy(logits_TV: torch.Tensor) -> torch.Tensor:
    """Entropy of each row's distribution, nats."""
    logp_TV = torch.log_softmax(logits_TV, dim=1)
    return -(logp_TV.exp() * logp_TV).sum(dim=1)
