"""An affine map of the last hidden state, near the identity: h' = h + (h A) B + c.

Two thin products of rank r instead of one of D: cheap beside the head, and few numbers to fit. B = 0 and c = 0 is the
identity. Products run in the dtype of the hidden states (accumulated in float32 by the hardware), the sum in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

import torch

from workers.calibrators.base import Base, require, shape
from workers.calibrators.protocol import Parameter, RowContext


class LowRank(Base):
    """`down_DR` is A, `up_RD` is B, `shift_D` is c."""

    KIND: ClassVar[str] = "lowrank"

    def __init__(self, down_DR: torch.Tensor, up_RD: torch.Tensor, shift_D: torch.Tensor) -> None:
        require(
            down_DR.ndim == 2
            and up_RD.ndim == 2
            and down_DR.shape == up_RD.T.shape
            and tuple(shift_D.shape) == (down_DR.shape[0],),
            f"A {shape(down_DR)}, B {shape(up_RD)} and c {shape(shift_D)} do not fit together",
        )
        require(down_DR.dtype == up_RD.dtype, f"A is {down_DR.dtype} and B {up_RD.dtype}")
        self.down_DR = down_DR
        self.up_RD = up_RD
        self.shift_D = shift_D

    @property
    def hidden_size(self) -> int:
        """D."""
        return int(self.down_DR.shape[0])

    @property
    def rank(self) -> int:
        """r."""
        return int(self.down_DR.shape[1])

    def apply_hidden(self, hidden_TD: torch.Tensor, context: RowContext) -> torch.Tensor:
        """h + (h A) B + c."""
        del context
        change_TD = (hidden_TD @ self.down_DR.to(hidden_TD.dtype)) @ self.up_RD.to(hidden_TD.dtype)
        return add(hidden_TD, change_TD, self.shift_D)

    def describe(self) -> Mapping[str, Parameter]:
        """Width and rank."""
        return {"hidden_size": self.hidden_size, "rank": self.rank}

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """A, B and c."""
        return {"down_DR": self.down_DR, "up_RD": self.up_RD, "shift_D": self.shift_D}

    @classmethod
    def restore(cls, parameters: Mapping[str, Parameter], tensors: Mapping[str, torch.Tensor]) -> Self:
        """From A, B and c."""
        made = cls(tensors["down_DR"], tensors["up_RD"], tensors["shift_D"])
        require(
            dict(made.describe()) == dict(parameters),
            f"A of shape {shape(made.down_DR)} is not that of the description",
        )
        return made

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> Self:
        """The same on another device, its matrices in `dtype`."""
        return type(self)(self.down_DR.to(device, dtype), self.up_RD.to(device, dtype), self.shift_D.to(device))


def add(hidden_TD: torch.Tensor, change_TD: torch.Tensor, shift_D: torch.Tensor) -> torch.Tensor:
    """Their sum in at least float32, in the dtype of `hidden_TD`: one rounding instead of two."""
    wide = torch.promote_types(hidden_TD.dtype, torch.float32)
    return (hidden_TD.to(wide) + change_TD.to(wide) + shift_D.to(wide)).to(hidden_TD.dtype)
