"""Activations as they will be while the model runs: a scale a token, and gradients that pass the rounding."""

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from workers.surgery.even_grid import on_grid


class _Through(torch.autograd.Function):
    """Rounded forward; backward as if nothing were done (the straight-through estimate, arXiv 1308.3432)."""

    @staticmethod
    def forward(_: Any, x: torch.Tensor, bits: int) -> torch.Tensor:
        return on_grid(x, bits=bits, symmetric=True)

    @staticmethod
    def backward(_: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None


def round_tokens(x: torch.Tensor, bits: int) -> torch.Tensor:
    """x (…, I) on a symmetric grid of its own for every token, as engines do it at run time (ZeroQuant)."""
    return _Through.apply(x, bits)  # type: ignore[no-any-return, no-untyped-call]


def rounding_inputs(linears: Iterable[nn.Linear], bits: int | None) -> ExitStack:
    """Until it is closed, these layers round what they are given; nothing where `bits` is None."""
    stack = ExitStack()
    if bits is not None:
        width = bits

        def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (round_tokens(args[0], width), *args[1:])

        for linear in linears:
            stack.callback(linear.register_forward_pre_hook(hook).remove)
    return stack
