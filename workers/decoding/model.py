"""What a decoder needs of a model: the next distribution and the last hidden state of rows of text that grow.

Names: R rows, V vocabulary, D hidden size, L tokens of a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Step:
    """Of each row: the logits of its next token, (R, V) float32, and the hidden state that they come from, (R, D)
    float32, behind the final norm."""

    logits_RV: torch.Tensor
    hidden_RD: torch.Tensor


class Session(Protocol):
    """Rows of text in a model. It begins with one row a prompt."""

    @property
    def step(self) -> Step:
        """What follows the rows as they are."""

    @property
    def prompt_hidden(self) -> Sequence[torch.Tensor]:
        """(L, D) float32 of each prompt's tokens, the last one's being that of the first `step`."""

    def next(self, tokens: Sequence[int], parents: Sequence[int]) -> Step:
        """Row r becomes the row `parents[r]` with `tokens[r]` behind it; a row that is no one's parent is dropped, and
        one may be the parent of several. Gives the new `step`."""

    def keep(self, rows: Sequence[int]) -> None:
        """Goes on with these rows alone, in this order, and their `step`."""


class Model(Protocol):
    """A causal language model."""

    @property
    def vocabulary(self) -> int:
        """Number of tokens, V."""

    def open(self, prompts: Sequence[Sequence[int]]) -> Session:
        """Reads the prompts."""


def check_logits(logits_RV: torch.Tensor, info: CheckpointInfo) -> None:
    """Raises NONFINITE_LOGITS if a row has NaN or +∞, or nothing but −∞: no decoder can take a token then."""
    if not bool(logits_RV.amax(1).isfinite().all()):
        raise HemostatError(
            ErrorCode.NONFINITE_LOGITS,
            f"logits of {info.path.name} were not finite during generation",
            hint="`hemostat compare` shows at how many positions; try a milder recipe",
        )


@dataclass(frozen=True)
class Continuation:
    """The tokens behind a prompt, with the one that ended the text where there was one (`ended`)."""

    tokens: tuple[int, ...]
    ended: bool
