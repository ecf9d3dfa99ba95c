"""A constant for some tokens: a modification that makes single tokens too likely everywhere is undone by one add.

Sparse: only tokens with evidence have a number, all others exactly none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import torch

from workers.calibrators.base import Base, number, require, shape
from workers.calibrators.protocol import Parameter, RowContext


class TokenBias(Base):
    """logits + b. `ids_I` int64, rising, of tokens below `tokens`; `bias_I` float32 their numbers."""

    KIND: ClassVar[str] = "token_bias"

    def __init__(self, ids_I: torch.Tensor, bias_I: torch.Tensor, tokens: int) -> None:
        require(
            ids_I.ndim == 1 and ids_I.shape == bias_I.shape and ids_I.dtype == torch.int64,
            f"token ids of shape {shape(ids_I)} ({ids_I.dtype}) and a bias of shape {shape(bias_I)}",
        )
        require(
            bool((ids_I.diff() > 0).all()) and (len(ids_I) == 0 or (int(ids_I[0]) >= 0 and int(ids_I[-1]) < tokens)),
            f"token ids must rise, from 0 to below {tokens}",
        )
        self.ids_I = ids_I
        self.bias_I = bias_I
        self._tokens = tokens
        # Kept dense: one add is cheaper than a gather and a scatter.
        self._bias_V = torch.zeros(tokens, dtype=torch.float32, device=bias_I.device)
        self._bias_V[ids_I] = bias_I.to(torch.float32)

    @property
    def vocabulary(self) -> int:
        """Number of tokens of the model."""
        return self._tokens

    def apply_logits(self, logits_TV: torch.Tensor, context: RowContext) -> torch.Tensor:
        """logits + b."""
        del context
        if len(self.ids_I) == 0:
            return logits_TV
        return (logits_TV + self._bias_V).to(logits_TV.dtype)

    def apply_logits_(self, logits_TV: torch.Tensor, context: RowContext) -> torch.Tensor:
        """logits + b, where they stand if they are float32."""
        if logits_TV.dtype != torch.float32:
            return self.apply_logits(logits_TV, context)
        return logits_TV.add_(self._bias_V) if len(self.ids_I) else logits_TV

    def describe(self) -> Mapping[str, Parameter]:
        """How many tokens have a number, and the largest of them."""
        largest = float(self.bias_I.abs().amax()) if len(self.bias_I) else 0.0
        return {"vocabulary": self._tokens, "biased_tokens": len(self.ids_I), "largest_bias": largest}

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Ids and their numbers."""
        return {"ids_I": self.ids_I, "bias_I": self.bias_I}

    @classmethod
    def restore(cls, parameters: Mapping[str, Parameter], tensors: Mapping[str, torch.Tensor]) -> Self:
        """From ids and numbers."""
        return cls(tensors["ids_I"], tensors["bias_I"], int(number(parameters, "vocabulary")))

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Self:
        """The same on another device; always float32."""
        del dtype
        return type(self)(self.ids_I.to(device), self.bias_I.to(device), self._tokens)
