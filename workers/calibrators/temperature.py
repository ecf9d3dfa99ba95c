"""Temperature scaling: logits divided by one number.

Guo et al., On Calibration of Modern Neural Networks (2017), §4.2; there fitted to labels, here to the reference's
distribution. It moves no token past another, so greedy decoding does not change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Self

import torch

from workers.calibrators.base import Base, number, require
from workers.calibrators.protocol import Parameter, RowContext


class Temperature(Base):
    """logits / T. ValueError unless T is finite and above 0."""

    KIND: ClassVar[str] = "temperature"

    def __init__(self, temperature: float) -> None:
        require(math.isfinite(temperature) and temperature > 0, f"temperature {temperature}, expected above 0")
        self.temperature = temperature

    def apply_logits(self, logits_TV: torch.Tensor, context: RowContext) -> torch.Tensor:
        """logits / T."""
        del context
        if self.temperature == 1.0:
            return logits_TV
        return (logits_TV.to(_wide(logits_TV)) / self.temperature).to(logits_TV.dtype)

    def apply_logits_(self, logits_TV: torch.Tensor, context: RowContext) -> torch.Tensor:
        """logits / T, where they stand if they are float32."""
        if logits_TV.dtype != torch.float32:
            return self.apply_logits(logits_TV, context)
        return logits_TV if self.temperature == 1.0 else logits_TV.div_(self.temperature)

    def describe(self) -> Mapping[str, Parameter]:
        """T."""
        return {"temperature": self.temperature}

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """None: the one number is in `describe`."""
        return {}

    @classmethod
    def restore(cls, parameters: Mapping[str, Parameter], tensors: Mapping[str, torch.Tensor]) -> Self:
        """From its T."""
        del tensors
        return cls(number(parameters, "temperature"))

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Self:
        """Itself."""
        del device, dtype
        return self


def _wide(tensor: torch.Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
