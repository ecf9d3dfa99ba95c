"""The adapter is fitted block by block: each block, repaired, is to give what the reference's would give in its place.

The closed form takes a layer's inputs for independent of the gradients at its outputs, and its error for independent of
those beside it. Here the layers of a block are trained together, through what the block does with them, on hundreds of
numbers a token where distillation has one divergence (`workers.mitigation.reconstruction`). The reference's block, and
those after it that were dropped, are given the repaired model's own states. What blocks before lost is no part of the
target, since the block cannot know it, and following it fits noise. A part of the windows is not trained on: a block
whose error there did not fall keeps the factors that it came with.

Memory: one block of each model, its adapter three times in float32; disk: 2·D bytes per token four times.

Names: N windows, L tokens of a window, D hidden size.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from workers.mitigation.optimizer import Rate, adam_of
from workers.mitigation.reconstruction import Fetch, Scheduled, metric_root, orders, pairs_of, reconstruct
from workers.mitigation.repair.adapter import Adapted, merged
from workers.mitigation.repair.closed_form import Factors
from workers.mitigation.split import Split
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.walk import Activations, Block, Walk
from workers.surgery.callbacks import CheckCancelled, Progress, never_cancelled, no_progress

# Positions of one step, at least one window.
STEP_TOKENS = 1024
# Steps relative to the root mean square of a factor.
RATE = 0.012


class FactorsOfBlock(Scheduled):
    """The factors of a block's adapted layers, and Adam on them."""

    def __init__(self, adapted: Mapping[str, Adapted], *, rate: float = RATE) -> None:
        factors = [factor for one in adapted.values() for factor in one.factors()]
        super().__init__(adam_of(factors, Rate(rate, relative=True), (0.9, 0.95)))


class Blocks:
    """One walk through both models that fits the factors of each block.

    `pairs`: the reference's layer of each of the modified model's; `leaving`: layer → E[δ δᵀ] at the block's output
    (default: every direction counts the same). `scratch` must not be that of another walk.
    """

    def __init__(
        self,
        wounded: Skeleton,
        reference: Skeleton,
        tokens_NL: torch.Tensor,
        scratch: Path,
        *,
        pairs: Sequence[int],
        leaving: Mapping[int, torch.Tensor] | None = None,
        epochs: int,
        seed: int,
        progress: Progress = no_progress,
        check_cancelled: CheckCancelled = never_cancelled,
    ) -> None:
        self._wounded, self._tokens_NL, self._scratch = wounded, tokens_NL, scratch
        self._pairs, self._leaving = tuple(pairs), leaving or {}
        self._epochs, self._seed = epochs, seed
        self._progress, self._check_cancelled = progress, check_cancelled
        self._reference = reference
        self._split = Split.of(len(tokens_NL))

        @cache
        def calls(skeleton: Skeleton, windows: int) -> list[dict[str, Any]]:
            return skeleton.calls(tokens_NL[:windows])[1]

        self._calls = calls

    def run(self, factors: Mapping[str, Factors]) -> dict[str, Factors]:
        """The factors after it; those of a block that it did not help are the ones given. Raises what `Walk` raises."""
        found = dict(factors)
        walk = Walk(
            self._wounded,
            self._tokens_NL,
            self._scratch,
            phase="blocks",
            progress=self._progress,
            check_cancelled=self._check_cancelled,
        )
        for block in walk.blocks():
            mine = {name: found[name] for name in block.linears if name in found}
            if mine and self._following(block.index) > self._pairs[block.index]:
                found |= self._fit(block, walk, mine)
            for name in mine:
                linear = block.linears[name]
                linear.weight.data = merged(linear.weight.data, found[name])
        return found

    def _following(self, index: int) -> int:
        """The reference's layer of the next block. That of a block which is twice is its own: the first of the two
        has nothing that it should give."""
        return self._pairs[index + 1] if index + 1 < len(self._pairs) else self._reference.info.layers

    @torch.no_grad()
    def _wanted(self, index: int, walk: Walk) -> Activations:
        """What the reference's layer, and those after it that were dropped, make of what enters a block."""
        wanted = Activations(
            self._scratch / "wanted.bin", walk.entering.shape, walk.entering.dtype, walk.entering.device
        )
        for layer in range(self._pairs[index], self._following(index)):
            module = self._reference.block(layer)
            source = walk.entering if layer == self._pairs[index] else wanted
            for start, end in walk.batches():
                self._check_cancelled()
                wanted.write(
                    start, _run(module, source.read(start, end), self._calls(self._reference, end - start)[layer])
                )
            self._reference.release(layer)
        return wanted

    def _fit(self, block: Block, walk: Walk, factors: Mapping[str, Factors]) -> dict[str, Factors]:
        entering, wanted = walk.entering, self._wanted(block.index, walk)
        width = entering.shape[-1]
        moment_DD = self._leaving.get(block.index)
        root_DD = (
            metric_root(torch.zeros(width, width), 1.0)
            if moment_DD is None
            else metric_root(moment_DD.to(entering.device))
        )

        fetch = pairs_of(entering, wanted)

        def call(hidden_NLD: torch.Tensor) -> torch.Tensor:
            return _run(block.module, hidden_NLD, self._calls(self._wounded, len(hidden_NLD))[block.index])

        batch = max(1, STEP_TOKENS // entering.shape[1])
        windows = torch.tensor(self._split.train, device="cpu")
        seed = (self._seed * 1_000_003 + block.index) % 2**63
        plan = [windows[chosen] for chosen in orders(len(windows), batch, self._epochs, seed)]
        adapted = _adapted(block, factors)
        try:
            before = self._error(call, fetch, root_DD)
            reconstruct(call, FactorsOfBlock(adapted), fetch, root_DD, plan, check_cancelled=self._check_cancelled)
            helped = self._error(call, fetch, root_DD) < before
        finally:
            for name, one in adapted.items():
                _set(block, name, one.base)
        if not helped:
            return dict(factors)
        return {
            name: Factors(one.up_OR.detach(), one.down_RI.detach(), factors[name].gains_R)
            for name, one in adapted.items()
        }

    @torch.no_grad()
    def _error(
        self,
        call: Callable[[torch.Tensor], torch.Tensor],
        fetch: Fetch,
        root_DD: torch.Tensor,
    ) -> float:
        """Mean weighted squared error on the windows that decide."""
        total = 0.0
        for window in self._split.held_out:
            self._check_cancelled()
            entering_NLD, wanted_NLD = fetch(torch.tensor([window]))
            error_NLD = call(entering_NLD).float() - wanted_NLD.float()
            total += float((error_NLD @ root_DD).square().mean())
        return total / len(self._split.held_out)


def _run(module: torch.nn.Module, hidden_NLD: torch.Tensor, kwargs: Mapping[str, Any]) -> torch.Tensor:
    found: Any = module(hidden_NLD, **kwargs)
    leaving_NLD: torch.Tensor = found[0] if isinstance(found, tuple) else found
    return leaving_NLD


def _adapted(block: Block, factors: Mapping[str, Factors]) -> dict[str, Adapted]:
    """Puts adapters in the place of a block's linear layers."""
    found = {name: Adapted(block.linears[name], one) for name, one in factors.items()}
    for name, one in found.items():
        _set(block, name, one)
    return found


def _set(block: Block, name: str, module: torch.nn.Module) -> None:
    parent, _, leaf = name.removeprefix(block.prefix).removesuffix(".weight").rpartition(".")
    setattr(block.module.get_submodule(parent), leaf, module)
