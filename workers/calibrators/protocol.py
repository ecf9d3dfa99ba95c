"""What every calibrator is: a correction of the last hidden state, of the logits, or of both.

A calibrator is fitted by minimizing KL(reference‖calibrated) and then never changes. It is applied row by row: what
comes out of one row depends on that row and its context alone, never on which rows share the batch.

The protocol is what serving needs. It has no `fit`. Fitting takes both models' hidden states and heads and a stop set,
and belongs to whole compositions (`workers.calibration.fitting.fit`). The engine process imports this package and is to
load nothing of that.

Names: T rows (positions), D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

Parameter = float | int | str | bool


@dataclass(frozen=True)
class RowContext:
    """What is known of each row beside its hidden state, known alike when fitting and when serving.

    `position_T`: int64, number of tokens before the predicted one (prompt and output together, BOS included).
    `token_T`: int64, the token at the row, that is the last one before the predicted token.
    """

    position_T: torch.Tensor
    token_T: torch.Tensor

    def select(self, rows: torch.Tensor) -> RowContext:
        """The context of some rows; `rows` is an int64 index or a bool mask."""
        return RowContext(self.position_T[rows], self.token_T[rows])

    def to(self, device: torch.device) -> RowContext:
        """The same on another device."""
        return RowContext(self.position_T.to(device), self.token_T.to(device))


@runtime_checkable
class Calibrator(Protocol):
    """One correction.

    `apply_hidden` comes before the model's head, `apply_logits` after it. One that does nothing returns its argument
    itself. Neither writes into its argument; `apply_logits_` may.
    """

    @property
    def kind(self) -> str:
        """Name of its class, as it is stored."""
        ...

    def apply_hidden(self, hidden_TD: torch.Tensor, context: RowContext) -> torch.Tensor:
        """Corrected hidden states, of the dtype of `hidden_TD` (bf16 when serving, float32 when fitting)."""
        ...

    def apply_logits(self, logits_TV: torch.Tensor, context: RowContext) -> torch.Tensor:
        """Corrected logits, of the dtype of `logits_TV`."""
        ...

    def apply_logits_(self, logits_TV: torch.Tensor, context: RowContext) -> torch.Tensor:
        """`apply_logits`, bit for bit, for a caller who needs `logits_TV` no more: it may be written to."""
        ...

    def describe(self) -> Mapping[str, Parameter]:
        """What it shows to a person: a few numbers, no tensors."""
        ...

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """What is stored of it, by name; with `describe` enough to make it again (`storage.load`)."""
        ...

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Calibrator:
        """The same on another device; `dtype` is that of the hidden states it will be given."""
        ...
