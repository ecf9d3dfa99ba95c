"""The calibrator that changes nothing: what is served until another has proven itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import torch

from workers.calibrators.base import Base
from workers.calibrators.protocol import Parameter


class Identity(Base):
    """Returns its arguments themselves."""

    KIND: ClassVar[str] = "identity"

    def describe(self) -> Mapping[str, Parameter]:
        """Nothing to tell."""
        return {}

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """None."""
        return {}

    @classmethod
    def restore(cls, parameters: Mapping[str, Parameter], tensors: Mapping[str, torch.Tensor]) -> Self:
        """The identity."""
        del parameters, tensors
        return cls()

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Self:
        """Itself."""
        del device, dtype
        return self
