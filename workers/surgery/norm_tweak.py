"""Norm tweaking (Li et al. 2023, arXiv 2309.02784): norms retuned so that blocks put out what the reference's do.

Taken from there: only the norms' weights are trained, block by block, on the distance of the outputs' mean and variance
a channel. Each block is given what the changed blocks before it put out; the learning rate grows with depth. Ours,
because a few channels of a trained model are hundreds of times larger than the others and would be all that counts. A
channel's differences are relative to its spread in the reference, 1/C Σ_c |μ_c − μ'_c| / σ_c + |σ²_c − σ'²_c| / σ²_c. A
gain is trained as a factor on itself, so that a learning rate means the same for small gains and large ones. Ours too:
calibration text in place of generated text; statistics over the tokens of a batch, which both models see; float32. A
block's norms are kept only where the distance over all of the text, in the checkpoint's own dtype, became smaller.

Where steps before dropped and duplicated as many layers, a block's partner is the one it was made of (`alignment`).

Names: N windows, L tokens of a window, D channels.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from app.contracts.errors import ErrorCode, HemostatError
from app.models.steps.norm import against
from app.recipes.norm import NormTweak
from workers.surgery.alignment import align
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.walk import Block, Walk
from workers.surgery.gains import offset_of
from workers.surgery.reading import open_tensors
from workers.surgery.step_run import StepRun
from workers.surgery.walking import walk_of

# (mean, variance) of each channel, for each batch of the text.
Wanted = list[tuple[torch.Tensor, torch.Tensor]]
# The learning rate of the last block is that of the first times one and this.
_DEPTH = 1.0
# Variance of a channel that does not vary.
_LEAST = 1e-12


class TweakStep:
    """`norm.tweak`."""

    version = 2

    def __init__(self, step: NormTweak) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Raises RECIPE_NOT_APPLICABLE if the reference has other blocks, ACTIVATIONS_NOT_FINITE, and what
        `Skeleton` raises. Figures: mean distance before and after, and how many blocks were changed."""
        source, reference = context.source, context.reference
        against(reference, source, self._step, f"/candidate/recipe/{context.index}")
        chosen = {norm.name for norm in context.weights}
        tokens_NL = context.calibration.tokens_NL
        before, after, changed = 0.0, 0.0, 0
        with ExitStack() as stack:
            reader = stack.enter_context(open_tensors(reference, context.device))
            ours = walk_of(context, phase="tweak")
            theirs = Walk(
                Skeleton(reference, reader.read, device=context.device),
                tokens_NL,
                context.scratch,
                phase="reference",
                check_cancelled=context.check_cancelled,
            )
            targets = _targets(theirs, align(context, reader.read))
            for block, wanted in zip(ours.blocks(), targets, strict=True):
                first, last = self._tweak(block, wanted, chosen, context, ours)
                before, after, changed = before + first, after + last, changed + (last < first)
        context.figures["distance_before"] = before / source.layers
        context.figures["distance_after"] = after / source.layers
        context.figures["blocks_changed"] = changed

    def _tweak(
        self, block: Block, wanted: Wanted, chosen: set[str], context: StepRun, walk: Walk
    ) -> tuple[float, float]:
        """Trains one block's norms; its distance before and after."""
        first = _distance_of(block, wanted)
        names = [name for name, _ in block.module.named_parameters() if f"{block.prefix}{name}" in chosen]
        if not names:
            return first, first
        trained = self._train(block, names, wanted, walk, context.check_cancelled)
        parameters = dict(block.module.named_parameters())
        kept = {name: parameters[name].data for name in names}
        for name in names:
            parameters[name].data = trained[name].to(kept[name].dtype)
        last = _distance_of(block, wanted)
        if not last < first:
            for name in names:
                parameters[name].data = kept[name]
            return first, first
        for name in names:
            context.put(f"{block.prefix}{name}", parameters[name].data)
        return first, last

    def _train(
        self,
        block: Block,
        names: list[str],
        wanted: Wanted,
        walk: Walk,
        check_cancelled: Callable[[], None],
    ) -> dict[str, torch.Tensor]:
        module = copy.deepcopy(block.module).float()
        offset = offset_of(walk.skeleton.info)
        gains = {name: one.data + offset for name, one in module.named_parameters() if name in names}
        factors = {name: torch.zeros_like(gain, requires_grad=True) for name, gain in gains.items()}
        depth = block.index / max(1, len(walk.skeleton.layers) - 1)
        adam = torch.optim.Adam(factors.values(), lr=self._step.learning_rate * (1 + _DEPTH * depth))
        batches = list(walk.batches())
        for step in range(self._step.steps):
            check_cancelled()
            start, end = batches[step % len(batches)]
            entering_NLD = walk.entering.read(start, end).float()
            now = {name: gains[name] * (1 + factor) - offset for name, factor in factors.items()}
            leaving_NLD = _call(module, now, entering_NLD, walk.kwargs(end - start, block.index))
            adam.zero_grad()
            distance(statistics(leaving_NLD), wanted[step % len(batches)]).backward()  # type: ignore[no-untyped-call]
            adam.step()
        return {name: gains[name] * (1 + factor.detach()) - offset for name, factor in factors.items()}


def statistics(hidden_NLD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(mean (D), variance (D)) of each channel over all tokens, float32."""
    flat_TD = hidden_NLD.to(torch.float32).reshape(-1, hidden_NLD.shape[-1])
    return flat_TD.mean(0), flat_TD.var(0, unbiased=False)


def distance(one: tuple[torch.Tensor, torch.Tensor], other: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """The mean over channels of |μ − μ'| / σ + |σ² − σ'²| / σ², μ and σ being those of `other`."""
    variance_D = other[1].clamp(min=_LEAST)
    return ((one[0] - other[0]).abs() / variance_D.sqrt() + (one[1] - other[1]).abs() / variance_D).mean()


def _targets(theirs: Walk, pairs: Sequence[int]) -> Iterator[Wanted]:
    """What the reference's blocks `pairs`, which never fall, put out: one after the other, each as often as named."""
    blocks = theirs.blocks()
    block = next(blocks)
    wanted: Wanted | None = None
    for index in pairs:
        while block.index < index:
            block, wanted = next(blocks), None
        if wanted is None:
            wanted = [statistics(leaving_NLD) for _, _, leaving_NLD in block.outputs()]
        yield wanted


def _distance_of(block: Block, wanted: Wanted) -> float:
    found = [statistics(leaving_NLD) for _, _, leaving_NLD in block.outputs()]
    total = sum(float(distance(one, other)) for one, other in zip(found, wanted, strict=True)) / len(found)
    if total != total:  # noqa: PLR0124 - NaN
        raise HemostatError(
            ErrorCode.ACTIVATIONS_NOT_FINITE,
            f"the output of layer {block.index} is NaN or infinite on the calibration text",
            hint="the model overflows in its dtype: check the earlier layers",
        )
    return total


def _call(
    module: nn.Module, norms: dict[str, torch.Tensor], hidden_NLD: torch.Tensor, kwargs: dict[str, Any]
) -> torch.Tensor:
    """The block with other norms."""
    given = {name: _float(value) for name, value in kwargs.items()}
    found: Any = torch.func.functional_call(module, norms, (hidden_NLD,), given)
    leaving_NLD: torch.Tensor = found[0] if isinstance(found, tuple) else found
    return leaving_NLD


def _float(value: Any) -> Any:
    """Masks and rotary positions in float32."""
    if isinstance(value, tuple):
        return tuple(_float(one) for one in value)
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
