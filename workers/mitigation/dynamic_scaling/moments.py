"""What a block's layers are given: by the quantized model and, for biases, by the source at the same tokens.

Shapes: T tokens of a batch, I input dimension of a layer, O output dimension.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from workers.surgery.blockwise.gram import add_upper, mirror
from workers.surgery.blockwise.walk import Block, Group

# Tokens by which sizes of channels are reported, and modules' costs predicted.
SAMPLE_TOKENS = 512


class Moment:
    """`own_II`: mean of w x' x'ᵀ; `mean_I`: mean of x'; `shift_I`: mean of x − x', 0 if no source is shown. With x
    the source's input, x' the quantized model's, w what a token counts (`weight_T`, of all tokens of the text in their
    order, mean 1; default: all alike). `divide_I`: what channels of x were divided by since."""

    def __init__(self, inputs: int, divide_I: torch.Tensor | None = None, weight_T: torch.Tensor | None = None) -> None:
        self.own_II = torch.zeros(inputs, inputs)
        self.shift_I, self.mean_I = torch.zeros(inputs), torch.zeros(inputs)
        self._divide_I, self._weight_T, self._tokens = divide_I, weight_T, 0

    def see(self, own_TI: torch.Tensor, source_TI: torch.Tensor | None = None) -> None:
        """One batch."""
        own_TI = own_TI.to(torch.float32)
        seen = self._tokens + len(own_TI)
        counted_TI = own_TI
        if self._weight_T is not None:
            counted_TI = own_TI * self._weight_T[self._tokens : seen, None]
        product_II = torch.zeros_like(self.own_II)
        add_upper(product_II, counted_TI, own_TI)
        sums = [(self.own_II, mirror(product_II)), (self.mean_I, own_TI.sum(0))]
        if source_TI is not None:
            source_TI = source_TI.to(torch.float32)
            gap_TI = (source_TI if self._divide_I is None else source_TI / self._divide_I) - own_TI
            sums.append((self.shift_I, gap_TI.sum(0)))
        for mean, total in sums:
            mean.mul_(self._tokens / seen).add_(total, alpha=1 / seen)
        self._tokens = seen


def see_inputs(own: Block, moments: Mapping[str, Moment], source: Block | None = None) -> None:
    """One pass over all text; each moment sees the inputs of the layer that it is named after."""
    groups = {own.group_of(name) for name in moments}
    with ExitStack() as stack:
        blocks = (own,) if source is None else (own, source)
        seen = [{group: _catch(block, group, stack) for group in groups} for block in blocks]
        for _ in zip(*(block.outputs() for block in blocks), strict=True):
            inputs = {group: [caught[group].pop() for caught in seen] for group in groups}
            for name, moment in moments.items():
                moment.see(*inputs[own.group_of(name)])


def sample(block: Block, groups: tuple[Group, ...], tokens: int) -> dict[Group, torch.Tensor]:
    """(T, I) inputs of each group at some tokens of the first batches, spaced evenly, so that beginnings of windows are
    among them."""
    if not groups:
        return {}
    with ExitStack() as stack:
        parts = {group: _catch(block, group, stack) for group in groups}
        for _ in block.outputs():
            if sum(len(part) for part in parts[groups[0]]) >= tokens:
                break
    seen = sum(len(part) for part in parts[groups[0]])
    chosen_T = torch.arange(0, seen, max(1, seen // tokens))[:tokens]
    return {group: torch.cat(found)[chosen_T].to(torch.float32) for group, found in parts.items()}


def _catch(block: Block, group: Group, stack: ExitStack) -> list[torch.Tensor]:
    seen: list[torch.Tensor] = []

    def see(_: nn.Module, args: tuple[Any, ...]) -> None:
        seen.append(args[0].detach().reshape(-1, args[0].shape[-1]))

    stack.callback(block.linears[group[0]].register_forward_pre_hook(see).remove)
    return seen
