"""Scales, rounding, norms and biases tuned together on the divergence of the whole model from the reference.

Each step runs one window forward block by block, takes the gradient of KL(reference ‖ quantized) at the last hidden
states, and runs the blocks backward, each computed again with its gradients: memory holds the codes, one block in
float32, and the hidden states between blocks of one window.

What is tuned: each group's scale by a factor, norm weights and biases by a factor of their own, and, with `rounding`,
where between two codes a weight falls: w = scale · (round(code + rest + v) − zero), v being learned with
straight-through gradients (`learned`). Zero points and the places of zeros stay. An eighth of the windows is not tuned
on; where the divergence there has not become less, nothing stays tuned. The optimizer is Adam, its rate falling along
half a cosine. Learned rounding is SignRound's idea (AutoRound, arXiv 2309.05516), training scales on the whole model
after blocks are done is EfficientQAT's (arXiv 2407.11062), norm weights as a repair are norm tweaking's (arXiv
2309.02784); they use block outputs or labels, and one at a time. Here all are tuned at once on the divergence.

Shapes: L tokens of a window, D hidden size.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from app.contracts.errors import ErrorCode, HemostatError
from workers.mitigation.dynamic_scaling.activations import rounding_inputs
from workers.mitigation.dynamic_scaling.learned import LearnedBlock
from workers.mitigation.objectives import divergence
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.walk import Activations
from workers.surgery.callbacks import CheckCancelled, Progress, never_cancelled, no_progress

# Adam's rate for factors of scales, norms and biases, and for v, in steps of the grid. Rounding errors of a row make
# each other good: at five and ten times these rates a few dozen steps undo that, and the divergence is eight times
# greater.
RATE, ROUNDING_RATE = 2e-4, 1e-3
# One window of so many is not tuned on.
HELD_OUT = 8


class Tuning:
    """A quantized model that is to come near its reference.

    `entering`: what enters the first block of each window (N, L, D); `target`: what leaves the reference's last block,
    `teacher` its skeleton. `kwargs`: what each block is called with for one window.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        blocks: list[LearnedBlock],
        entering: Activations,
        kwargs: list[dict[str, Any]],
        target: Activations,
        teacher: Skeleton,
        *,
        activation_bits: int | None,
    ) -> None:
        self._skeleton, self._blocks, self._entering, self._kwargs = skeleton, blocks, entering, kwargs
        self._target, self._teacher, self._bits = target, teacher, activation_bits

    def run(
        self,
        steps: int,
        seed: int,
        *,
        progress: Progress = no_progress,
        check_cancelled: CheckCancelled = never_cancelled,
    ) -> tuple[float, float]:
        """Tunes for so many steps of one window each, in an order of `seed`; the divergence before and after, nats per
        token, on windows that were not tuned on (the only one, where there is one). Raises
        `HemostatError(ACTIVATIONS_NOT_FINITE)` where it is not finite."""
        windows = self._entering.shape[0]
        held = range(windows - max(1, windows // HELD_OUT), windows)
        before = self.measure(held, check_cancelled)
        factors = [leaf for block in self._blocks for leaf in block.leaves()[0]]
        offsets = [leaf for block in self._blocks for leaf in block.leaves()[1]]
        groups = [{"params": factors, "lr": RATE}] + ([{"params": offsets, "lr": ROUNDING_RATE}] if offsets else [])
        adam = torch.optim.Adam(groups, betas=(0.9, 0.95), eps=1e-12)
        falling = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
        draws = torch.Generator().manual_seed(seed)
        tuned = max(1, held.start)
        order = torch.cat([torch.randperm(tuned, generator=draws) for _ in range(-(-steps // tuned))]).tolist()
        for step in range(steps):
            progress("tuning", step, steps)
            self._step(order[step], check_cancelled)
            adam.step()
            adam.zero_grad(set_to_none=True)
            falling.step()
        progress("tuning", steps, steps)
        after = self.measure(held, check_cancelled)
        if after >= before:
            with torch.no_grad():
                for leaf in (*factors, *offsets):
                    leaf.zero_()
        return before, after

    @torch.no_grad()
    def measure(self, windows: Iterable[int], check_cancelled: CheckCancelled = never_cancelled) -> float:
        """Mean divergence over some windows as the model is now, nats per token."""
        total, tokens = 0.0, 0
        for window in windows:
            hidden_1LD = self._entering.read(window, window + 1)
            for index in range(len(self._blocks)):
                check_cancelled()
                hidden_1LD = self._call(index, hidden_1LD)
            target_LD = self._target.read(window, window + 1)[0]
            for part in torch.split(torch.arange(len(target_LD)), 256):
                total += float(divergence(self._skeleton, hidden_1LD[0][part], self._teacher, target_LD[part]).sum())
            tokens += len(target_LD)
        return total / tokens

    def _step(self, window: int, check_cancelled: CheckCancelled) -> float:
        states = [self._entering.read(window, window + 1)]
        with torch.no_grad():
            for index in range(len(self._blocks)):
                check_cancelled()
                states.append(self._call(index, states[-1]))
        last_LD = states.pop()[0].requires_grad_(True)
        target_LD = self._target.read(window, window + 1)[0]
        total = 0.0
        for part in torch.split(torch.arange(len(last_LD)), 256):
            with torch.enable_grad():
                nats = divergence(self._skeleton, last_LD[part], self._teacher, target_LD[part]).sum() / len(last_LD)
            nats.backward()  # type: ignore[no-untyped-call]
            total += float(nats.detach())
        if not math.isfinite(total):
            raise HemostatError(
                ErrorCode.ACTIVATIONS_NOT_FINITE,
                "the divergence from the reference is NaN or infinite on the calibration text",
                hint="the model overflows in its dtype, in its last layers or its head",
            )
        assert last_LD.grad is not None  # noqa: S101 - just computed
        gradient_1LD = last_LD.grad.unsqueeze(0)
        for index in reversed(range(len(self._blocks))):
            check_cancelled()
            entering_1LD = states.pop().requires_grad_(True)
            with torch.enable_grad():
                leaving_1LD = self._call(index, entering_1LD)
            leaving_1LD.backward(gradient_1LD)  # type: ignore[no-untyped-call]
            assert entering_1LD.grad is not None  # noqa: S101 - just computed
            gradient_1LD = entering_1LD.grad
        return total

    def _call(self, index: int, hidden_1LD: torch.Tensor) -> torch.Tensor:
        layer, block = self._skeleton.layers[index], self._blocks[index]
        linears = [layer.get_submodule(name.removesuffix(".weight")) for name in block.weights]
        with rounding_inputs([one for one in linears if isinstance(one, nn.Linear)], self._bits):
            found: Any = functional_call(
                layer, block.parameters(self._skeleton.dtype), (hidden_1LD,), self._kwargs[index]
            )
        return found[0] if isinstance(found, tuple) else found  # type: ignore[no-any-return]
