"""Corrections that depend on all that a calibrator may depend on, for tests."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from workers.calibrators.protocol import Parameter, RowContext


class ByContext:
    """Moves hidden states by position and logits by last token; NaN where the last token is `poison`."""

    kind = "by-context"

    def __init__(
        self, seed: int, *, poison: int | None = None, sharpness: float = 0.7, width: int = 64, vocabulary: int = 320
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.map_DD = torch.eye(width) + 0.1 * torch.randn(width, width, generator=generator)
        self.by_position_ND = 0.3 * torch.randn(16, width, generator=generator)
        self.by_token_VV = torch.randn(vocabulary, vocabulary, generator=generator)
        self.poison = poison
        self.sharpness = sharpness

    def apply_hidden(self, hidden_TD: torch.Tensor, context: RowContext) -> torch.Tensor:
        moved_TD = hidden_TD.float() @ self.map_DD + self.by_position_ND[context.position_T % 16]
        return moved_TD.to(hidden_TD.dtype)

    def apply_logits(self, logits_TV: torch.Tensor, context: RowContext) -> torch.Tensor:
        changed_TV = logits_TV * self.sharpness + self.by_token_VV[context.token_T]
        if self.poison is not None:
            changed_TV[context.token_T == self.poison] = float("nan")
        return changed_TV.to(logits_TV.dtype)

    def apply_logits_(self, logits_TV: torch.Tensor, context: RowContext) -> torch.Tensor:
        """Written to where they stand: were they anybody else's, that one would see it."""
        return logits_TV.copy_(self.apply_logits(logits_TV, context))

    def describe(self) -> Mapping[str, Parameter]:
        return {}

    def tensors(self) -> Mapping[str, torch.Tensor]:
        return {}

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> ByContext:
        return self
