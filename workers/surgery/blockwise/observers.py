"""What is gathered of the inputs of a linear layer. Sums are float32 (products of bf16 activations are exact there).

Shapes: T tokens of a batch, I input dimension of the layer.
"""

from typing import Protocol

import torch

from workers.surgery.blockwise.gram import add_upper, mirror


class Observer(Protocol):
    """Sees the inputs of one linear layer, or of several that share them, a batch at a time."""

    def see(self, x_TI: torch.Tensor) -> None:
        """One batch."""

    def finite(self) -> bool:
        """Whether all that was summed up is a number."""


class SecondMoment:
    """Mean of x xᵀ over `tokens`. GPTQ's Hessian is twice that."""

    def __init__(self, inputs: int) -> None:
        self._sum_II = torch.zeros(inputs, inputs)
        self.tokens = 0

    def see(self, x_TI: torch.Tensor) -> None:
        """One batch."""
        x_TI = x_TI.to(torch.float32)
        add_upper(self._sum_II, x_TI, x_TI)
        self.tokens += len(x_TI)

    def finite(self) -> bool:
        """Whether all that was summed up is a number."""
        return bool(torch.isfinite(self._sum_II).all())

    def mean(self) -> torch.Tensor:
        """E[x xᵀ] (I, I)."""
        return mirror(self._sum_II) / max(1, self.tokens)


class Channels:
    """Of each input channel: `squares_I` = Σ x², `absolute_I` = Σ |x|, `most_I` = max |x|, `low_I`, `high_I` = the
    least and greatest value; and `tokens`."""

    def __init__(self, inputs: int) -> None:
        self.squares_I = torch.zeros(inputs)
        self.absolute_I = torch.zeros(inputs)
        self.low_I = torch.zeros(inputs)
        self.high_I = torch.zeros(inputs)
        self.tokens = 0

    def see(self, x_TI: torch.Tensor) -> None:
        """One batch."""
        x_TI = x_TI.to(torch.float32)
        self.squares_I += x_TI.square().sum(0)
        self.absolute_I += x_TI.abs().sum(0)
        self.low_I = torch.minimum(self.low_I, x_TI.amin(0))
        self.high_I = torch.maximum(self.high_I, x_TI.amax(0))
        self.tokens += len(x_TI)

    def finite(self) -> bool:
        """Whether all that was summed up is a number."""
        return bool(torch.isfinite(self.squares_I).all())

    @property
    def most(self) -> torch.Tensor:
        """max |x| of each channel, (I)."""
        return torch.maximum(self.high_I, -self.low_I)

    def norm(self) -> torch.Tensor:
        """‖x_i‖₂ over all tokens, divided by √tokens: the root mean square of each channel, (I)."""
        return (self.squares_I / max(1, self.tokens)).sqrt()
