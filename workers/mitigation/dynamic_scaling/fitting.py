"""What is free in a rounded block is fitted so that the block gives what the source's block gives for the same states.

Layers were rounded one at a time, each for its own output. What they lose together, and what the block makes of it, is
seen here. Factors of the groups' scales, zero points, norms, biases and rounding are trained together through the block
(`workers.mitigation.reconstruction`). An error e of what leaves the block counts eᵀSe, S = E[δ δᵀ] there, δ the
divergence's gradient. Both blocks are given what the rounded blocks before give: what these lost is no part of the
target. A part of the windows is not trained on: a block whose error there did not fall keeps what it had.

Where it is from: EfficientQAT's Block-AP (arXiv 2407.11062) trains scales, zero points and weights block by block
towards the block's output. OmniQuant (arXiv 2308.13137) learns where ranges are cut. They take the plain squared error
of every number alike; the weighting is ours, as are the codes of error propagation that it begins with.

Memory: one block of each model, its codes, and what is free of it three times in float32 besides.

Shapes: N windows, L tokens of a window, D hidden size.
"""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.func import functional_call

from workers.mitigation.dynamic_scaling.learned import LearnedBlock
from workers.mitigation.reconstruction import Fetch, Scheduled, added, metric_root, orders, pairs_of, reconstruct
from workers.mitigation.split import Split
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.walk import Activations
from workers.surgery.callbacks import CheckCancelled, never_cancelled

# Positions of one step, at least one window.
STEP_TOKENS = 1024
# Steps of Adam: of factors; of rounding and of zero points, in steps of the grid. Rounding errors of a row make each
# other good: SmolLM2's second block, fitted over 14 windows three times, lost 6.5 % of its error by factors and zero
# points alone, 7.4 % with rounding at this rate, and nothing at three times the rate.
RATE, ROUNDING_RATE, ZERO_RATE = 1e-3, 3e-3, 1e-2
# Gradients of a relative error are too small for float16; how large they all are makes no difference to Adam.
HALF_GRADIENTS = 2.0**16


class Numbers(Scheduled):
    """What is free of a block, and Adam on it."""

    def __init__(self, block: LearnedBlock) -> None:
        rounding = [one.offset_OI for one in block.weights.values() if one.offset_OI is not None]
        zeros = [one.shift_OG for one in block.weights.values() if one.shift_OG is not None]
        rates = ((block.leaves(), RATE), (rounding, ROUNDING_RATE), (zeros, ZERO_RATE))
        groups: list[dict[str, Any]] = [{"params": some, "lr": rate, "base": rate} for some, rate in rates if some]
        # Gradients of single weights are small: the error is relative, and a mean over all numbers that leave a block.
        super().__init__(torch.optim.Adam(groups, betas=(0.9, 0.95), eps=1e-15, foreach=False))


class Fitting:
    """Fits the blocks of a model as they are rounded.

    `own`: the model that is being rounded, `source`: as it was; `leaving`: layer → E[δ δᵀ] at the block's output.
    `scratch`: a folder for mapped files.
    """

    def __init__(
        self,
        own: Skeleton,
        source: Skeleton,
        tokens_NL: torch.Tensor,
        scratch: Path,
        leaving: Mapping[int, torch.Tensor],
        *,
        epochs: int,
        seed: int,
        check_cancelled: CheckCancelled = never_cancelled,
    ) -> None:
        self._own, self._source, self._leaving, self._scratch = own, source, leaving, scratch
        self._epochs, self._seed, self._check = epochs, seed, check_cancelled
        self._split = Split.of(len(tokens_NL))
        self._batch = max(1, STEP_TOKENS // tokens_NL.shape[1])

        @cache
        def calls(windows: int) -> list[dict[str, Any]]:
            return own.calls(tokens_NL[:windows])[1]

        self._calls = calls

    def fit(self, index: int, entering: Activations, block: LearnedBlock) -> tuple[float, float]:
        """Trains what is free of a block, which is loaded in `own`. Its error on the windows that decide, before and
        after, relative to what the source's block adds to the states. Raises what `Skeleton` raises."""
        wanted = self._wanted(index, entering)
        root_DD, fetch = metric_root(self._leaving[index].to(entering.device)), pairs_of(entering, wanted)

        def call(hidden_NLD: torch.Tensor) -> torch.Tensor:
            kwargs = self._calls(len(hidden_NLD))[index]
            parameters = block.parameters(self._own.dtype)
            made_NLD = _first(functional_call(self._own.layers[index], parameters, (hidden_NLD,), kwargs))
            made_NLD = made_NLD.to(torch.float32)
            if made_NLD.requires_grad and self._own.dtype == torch.float16:
                made_NLD.register_hook(lambda gradient: gradient * HALF_GRADIENTS)  # type: ignore[no-untyped-call]
            return made_NLD

        windows = torch.tensor(self._split.train, device="cpu")
        seed = (self._seed * 1_000_003 + index) % 2**63
        plan = [windows[chosen] for chosen in orders(len(windows), self._batch, self._epochs, seed)]
        before = self._error(call, fetch, root_DD)
        reconstruct(call, Numbers(block), fetch, root_DD, plan, check_cancelled=self._check)
        return before, self._error(call, fetch, root_DD)

    @torch.no_grad()
    def _wanted(self, index: int, entering: Activations) -> Activations:
        """What the source's block makes of the states that enter."""
        wanted = Activations(self._scratch / "wanted.bin", entering.shape, entering.dtype, entering.device)
        layer = self._source.block(index)
        for start in range(0, entering.shape[0], self._batch):
            self._check()
            hidden_NLD = entering.read(start, min(entering.shape[0], start + self._batch))
            wanted.write(start, _first(layer(hidden_NLD, **self._calls(len(hidden_NLD))[index])))
        self._source.release(index)
        return wanted

    @torch.no_grad()
    def _error(self, call: Callable[[torch.Tensor], torch.Tensor], fetch: Fetch, root_DD: torch.Tensor) -> float:
        error = size = 0.0
        for window in self._split.held_out:
            self._check()
            entering_NLD, wanted_NLD = fetch(torch.tensor([window]))
            error_NLD = call(entering_NLD) - wanted_NLD.to(torch.float32)
            error += float((error_NLD @ root_DD).square().sum())
            size += float((added(entering_NLD, wanted_NLD) @ root_DD).square().sum())
        return error / max(size, 1e-30)


def _first(found: Any) -> torch.Tensor:
    leaving_NLD: torch.Tensor = found[0] if isinstance(found, tuple) else found
    return leaving_NLD
