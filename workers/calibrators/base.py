"""What calibrators have in common: they act on nothing unless they say so, fit any model, and are stored whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Self

import torch

from workers.calibrators.protocol import Parameter, RowContext


class Base(ABC):
    """A calibrator (`protocol.Calibrator`) that leaves hidden states and logits alone.

    `KIND` is the name that it is stored under. `hidden_size` and `vocabulary` are what it needs of a model, None if
    any will do. A subclass checks in its constructor that its tensors fit together (ValueError).
    """

    KIND: ClassVar[str]

    @property
    def kind(self) -> str:
        """Name of its class, as it is stored."""
        return self.KIND

    @property
    def hidden_size(self) -> int | None:
        """Width of the hidden states that it corrects; None: any."""
        return None

    @property
    def vocabulary(self) -> int | None:
        """Number of tokens of the logits that it corrects; None: any."""
        return None

    def apply_hidden(self, hidden_TD: torch.Tensor, context: RowContext) -> torch.Tensor:
        """Corrected hidden states, of the dtype of `hidden_TD`."""
        del context
        return hidden_TD

    def apply_logits(self, logits_TV: torch.Tensor, context: RowContext) -> torch.Tensor:
        """Corrected logits, of the dtype of `logits_TV`; sums and factors are taken in float32."""
        del context
        return logits_TV

    def apply_logits_(self, logits_TV: torch.Tensor, context: RowContext) -> torch.Tensor:
        """`apply_logits` that may write into `logits_TV`: a batch of logits is large, and memory is what it costs."""
        return self.apply_logits(logits_TV, context)

    @abstractmethod
    def describe(self) -> Mapping[str, Parameter]:
        """What it shows to a person: a few numbers, no tensors."""

    @abstractmethod
    def tensors(self) -> Mapping[str, torch.Tensor]:
        """What is stored of it, by name."""

    @classmethod
    @abstractmethod
    def restore(cls, parameters: Mapping[str, Parameter], tensors: Mapping[str, torch.Tensor]) -> Self:
        """The calibrator that `describe` and `tensors` came from. ValueError or KeyError if they do not fit."""

    @abstractmethod
    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Self:
        """The same on another device; `dtype` is that of the hidden states it will be given."""


def require(condition: bool, problem: str) -> None:
    """ValueError with `problem` where tensors do not fit together."""
    if not condition:
        raise ValueError(problem)


def shape(tensor: torch.Tensor) -> str:
    """A shape as people write it: 576×64."""
    return "×".join(str(size) for size in tensor.shape)


def number(parameters: Mapping[str, Parameter], name: str) -> float:
    """A parameter as a number; KeyError if it is missing, ValueError if it is none."""
    value = parameters[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {value!r}, expected a number")  # noqa: TRY004 - the file is wrong, not the caller
    return float(value)
