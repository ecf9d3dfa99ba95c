"""Gradients of the divergence from the reference, one block in memory at a time.

At the reference itself KL(reference ‖ candidate) is 0 and so is its gradient. What a small change costs is the second
order, ½ ΔwᵀFΔw, with F the Fisher information of the reference's own distribution (Gauss-Newton and Fisher are the same
here). F is the mean over positions t of E[g gᵀ], g = ∇ log p(y | prefix), y drawn from the model itself. Labels are
drawn, one per position. The score of a position has mean zero given its prefix, so products of different positions
vanish in expectation. So (Σ_t g_t)² of a window, divided by its positions, is exact in expectation: no gradient per
position is needed. At a candidate that differs the gradient itself is there:
∇_logits KL = softmax(candidate) − softmax(reference).

Where it is from: sampled labels instead of observed ones as in Kunstner et al. 2019 (arXiv 1905.12558, "true" against
"empirical" Fisher). The factors E[x xᵀ] and E[δ δᵀ] of a layer's Fisher, their product taken for it, from K-FAC
(Martens and Grosse 2015, arXiv 1503.05671). Running the blocks backward from stored inputs is gradient checkpointing
with the tape on disk; that, and the window sums, are put together here.

Memory: one block with its statistics, the head, and one batch; disk: what enters each block, 2·D bytes per token and
block in bf16. Cost: about four forward passes (forward; each block again; backward; the weights' gradients).

Names: N windows, L tokens of a window, T tokens of a batch, D hidden size, I and O input and output dimension of a
linear layer. Sums are over positions, means over all positions of the text.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo
from workers.mitigation.objectives import FromReference, Objective, OwnLabels
from workers.products import product
from workers.surgery.blockwise.skeleton import Read, Skeleton
from workers.surgery.blockwise.walk import Activations, Walk
from workers.surgery.callbacks import CheckCancelled, Progress, never_cancelled, no_progress


class Tape:
    """What enters each block of a model, and what leaves the last, on the given windows: one forward pass.

    `tokens_NL`: windows of one length. `scratch`: a folder for mapped files, `name` their beginning. Raises
    `HemostatError(ACTIVATIONS_NOT_FINITE)`, and what `Skeleton` raises.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        tokens_NL: torch.Tensor,
        scratch: Path,
        *,
        name: str = "tape",
        progress: Progress = no_progress,
        check_cancelled: CheckCancelled = never_cancelled,
    ) -> None:
        self.skeleton, self.check_cancelled, self.progress = skeleton, check_cancelled, progress
        self.scratch, self.name = scratch, name
        self.walk = Walk(skeleton, tokens_NL, scratch, phase=name, check_cancelled=check_cancelled)
        count = len(skeleton.layers)
        shape = (*tokens_NL.shape, skeleton.info.hidden_size)
        self.positions = tokens_NL.numel()
        self.states = [
            Activations(scratch / f"{name}-{i}.bin", shape, skeleton.dtype, skeleton.device) for i in range(count + 1)
        ]
        for start, end in self.walk.batches():
            self.states[0].write(start, self.walk.entering.read(start, end))
        for index in range(count):
            progress("forward", index, count)
            skeleton.block(index)
            for start, end in self.walk.batches():
                check_cancelled()
                leaving_NLD = self.walk.call(index, self.states[index].read(start, end))
                if not bool(torch.isfinite(leaving_NLD).all()):
                    raise HemostatError(
                        ErrorCode.ACTIVATIONS_NOT_FINITE,
                        f"the output of layer {index} is NaN or infinite on the calibration text",
                        hint="the model overflows in its dtype: check the earlier layers",
                    )
                self.states[index + 1].write(start, leaving_NLD)
            skeleton.release(index)
        progress("forward", count, count)


# takes layer, tensor name, what the linear layer was given (n, L, I), the gradient at what it gave (n, L, O)
Visit = Callable[[int, str, torch.Tensor, torch.Tensor], None]
# takes layer, the gradient at what the block gave (n, L, D)
VisitBlock = Callable[[int, torch.Tensor], None]


def backward(
    tape: Tape,
    objective: Objective,
    *,
    visit: Visit | None = None,
    visit_block: VisitBlock | None = None,
    finish: Callable[[int], None] | None = None,
    phase: str = "gradients",
) -> None:
    """Runs the blocks backward, the last one first; every linear layer is shown with inputs and output gradients.

    `finish(layer)` is called when a block has seen all windows. Raises `HemostatError(ACTIVATIONS_NOT_FINITE)` if a
    gradient is not finite.
    """
    skeleton, walk = tape.skeleton, tape.walk
    count = len(skeleton.layers)
    last = tape.states[count]
    gradients = Activations(tape.scratch / f"{tape.name}-gradients.bin", last.shape, skeleton.dtype, skeleton.device)
    for start, end in walk.batches():
        tape.check_cancelled()
        gradient_NLD = objective.gradient(start, last.read(start, end))
        _check_finite(gradient_NLD, "the head")
        gradients.write(start, gradient_NLD)
    for done, index in enumerate(reversed(range(count))):
        tape.progress(phase, done, count)
        block = skeleton.block(index)
        for start, end in walk.batches():
            tape.check_cancelled()
            leaving_NLD = gradients.read(start, end)
            if visit_block is not None:
                visit_block(index, leaving_NLD)
            entering_NLD = tape.states[index].read(start, end).requires_grad_(True)
            with ExitStack() as stack, torch.enable_grad():
                if visit is not None:
                    _watch(block, f"model.layers.{index}.", index, visit, stack)
                found: Any = block(entering_NLD, **walk.kwargs(end - start, index))
                out_NLD: torch.Tensor = found[0] if isinstance(found, tuple) else found
                (entered_NLD,) = torch.autograd.grad(out_NLD, entering_NLD, leaving_NLD)
            _check_finite(entered_NLD, f"layer {index}")
            gradients.write(start, entered_NLD)
        if finish is not None:
            finish(index)
        skeleton.release(index)
    tape.progress(phase, count, count)


def _check_finite(gradient_NLD: torch.Tensor, where: str) -> None:
    if not bool(torch.isfinite(gradient_NLD).all()):
        raise HemostatError(
            ErrorCode.ACTIVATIONS_NOT_FINITE,
            f"the gradient of the divergence below {where} is NaN or infinite on the calibration text",
            hint="the model overflows in its dtype there",
        )


def _watch(block: nn.Module, prefix: str, index: int, visit: Visit, stack: ExitStack) -> None:
    """Shows the linear layers of a block to `visit` as the gradients arrive."""

    def hook(name: str) -> Callable[..., None]:
        def see(_: nn.Module, args: tuple[Any, ...], out: torch.Tensor) -> None:
            given: torch.Tensor = args[0].detach()

            def arrived(gradient: torch.Tensor) -> None:
                visit(index, name, given, gradient.detach())

            out.register_hook(arrived)  # type: ignore[no-untyped-call]

        return see

    for path, one in block.named_modules():
        if isinstance(one, nn.Linear):
            stack.callback(one.register_forward_hook(hook(f"{prefix}{path}.weight")).remove)


@dataclass
class LayerGradients:
    """Of one linear layer, float32, means over positions; what was not asked for is None.

    `squares_OI`: mean of (Σ_t g)² of a window, divided by its positions: the diagonal of the Fisher if the objective
    is `OwnLabels`; `outputs_O`: E[δ²] of each output channel, δ the gradient there; `outputs_OO`: E[δ δᵀ]; `inputs_I`:
    E[x²]; `positions_NL`: ‖δ‖² of each position of the text.
    """

    squares_OI: torch.Tensor | None
    outputs_O: torch.Tensor
    outputs_OO: torch.Tensor | None
    inputs_I: torch.Tensor
    positions_NL: torch.Tensor | None = None


@dataclass
class Gatherer:
    """Sums `LayerGradients` of the addressed layers as `backward` shows them.

    `names`: the weights that are looked at. Weight-sized results go to mapped files in `folder`, so that memory holds
    those of one block; such results are the host's. `outputs_up_to`: `outputs_OO` of layers of at most so many
    outputs. `each`: `positions_NL` too.
    `leaving` (of `blocks`): layer → E[δ δᵀ] (D, D) where the block's output joins the next, mapped as well;
    `leaving_each` (of both): layer → ‖δ‖² there (N, L).
    """

    names: frozenset[str]
    positions: int
    folder: Path
    squares: bool = True
    outputs_up_to: int = 0
    blocks: bool = False
    each: bool = False
    found: dict[str, LayerGradients] = field(default_factory=dict)
    leaving: dict[int, torch.Tensor] = field(default_factory=dict)
    leaving_each: dict[int, torch.Tensor] = field(default_factory=dict)
    _open: dict[str, LayerGradients] = field(default_factory=dict)

    def visit(self, _layer: int, name: str, x_NLI: torch.Tensor, delta_NLO: torch.Tensor) -> None:
        """One batch of one layer."""
        if name not in self.names:
            return
        of = self._open.get(name)
        if of is None:
            of = self._open[name] = self._zeros(delta_NLO.shape[-1], x_NLI.shape[-1], delta_NLO.device)
        share = 1 / self.positions
        delta_TO = delta_NLO.reshape(-1, delta_NLO.shape[-1]).to(torch.float32)
        x_TI = x_NLI.reshape(-1, x_NLI.shape[-1]).to(torch.float32)
        of.outputs_O.add_(delta_TO.square().sum(0), alpha=share)
        of.inputs_I.add_(x_TI.square().sum(0), alpha=share)
        if of.outputs_OO is not None:
            of.outputs_OO.addmm_(delta_TO.T, delta_TO, alpha=share)
        if self.each:
            seen_NL = delta_TO.square().sum(1).reshape(delta_NLO.shape[:-1])
            of.positions_NL = seen_NL if of.positions_NL is None else torch.cat([of.positions_NL, seen_NL])
        if of.squares_OI is None:
            return
        for x_LI, delta_LO in zip(x_NLI, delta_NLO, strict=True):
            gradient_OI = product(delta_LO.T, x_LI).to(torch.float32)
            of.squares_OI.addcmul_(gradient_OI, gradient_OI, value=share)

    def visit_block(self, layer: int, delta_NLD: torch.Tensor) -> None:
        """One batch at a block's output."""
        if self.blocks:
            delta_TD = delta_NLD.reshape(-1, delta_NLD.shape[-1]).to(torch.float32)
            width = delta_TD.shape[-1]
            sum_DD = self.leaving.setdefault(layer, delta_TD.new_zeros(width, width))
            sum_DD.addmm_(delta_TD.T, delta_TD, alpha=1 / self.positions)
            if self.each:
                seen_NL = delta_TD.square().sum(1).reshape(delta_NLD.shape[:-1])
                before_NL = self.leaving_each.get(layer)
                self.leaving_each[layer] = seen_NL if before_NL is None else torch.cat([before_NL, seen_NL])

    def finish(self, layer: int) -> None:
        """A block has seen all windows: its matrices go to disk."""
        if (sum_DD := self.leaving.get(layer)) is not None:
            self.leaving[layer] = self._map(f"model.layers.{layer}", "leaving", sum_DD)
        for name, of in self._open.items():
            if of.squares_OI is not None:
                of.squares_OI = self._map(name, "squares", of.squares_OI)
            if of.outputs_OO is not None:
                of.outputs_OO = self._map(name, "outputs", of.outputs_OO)
            self.found[name] = of
        self._open.clear()

    def _zeros(self, outputs: int, inputs: int, device: torch.device) -> LayerGradients:
        # The device is named: in the thread of the way backward there is no default one.
        return LayerGradients(
            torch.zeros(outputs, inputs, device=device) if self.squares else None,
            torch.zeros(outputs, device=device),
            torch.zeros(outputs, outputs, device=device) if outputs <= self.outputs_up_to else None,
            torch.zeros(inputs, device=device),
        )

    def _map(self, name: str, kind: str, tensor: torch.Tensor) -> torch.Tensor:
        file = self.folder / f"{name}.{kind}.bin"
        # A page of a sparse file that the disk has no room for would end the process when it is written to.
        with file.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, tensor.numel() * 4)
        mapped = torch.from_file(str(file), shared=True, size=tensor.numel(), dtype=torch.float32)
        mapped.copy_(tensor.reshape(-1))
        return mapped.reshape(tensor.shape)


def gather_fisher(tape: Tape, gatherer: Gatherer, seed: int) -> None:
    """Fills a gatherer with the Fisher information of the tape's model: labels are drawn by `seed`. Raises what
    `backward` and `OwnLabels` raise."""
    backward(
        tape,
        OwnLabels(tape.skeleton, seed),
        visit=gatherer.visit,
        visit_block=gatherer.visit_block,
        finish=gatherer.finish,
        phase="fisher",
    )


def divergence_gradients_of(
    info: CheckpointInfo,
    read: Read,
    reference: Activations,
    teacher: Skeleton,
    tokens_NL: torch.Tensor,
    scratch: Path,
    *,
    names: frozenset[str],
    dtype: torch.dtype,
    progress: Progress = no_progress,
    check_cancelled: CheckCancelled = never_cancelled,
) -> tuple[Mapping[str, LayerGradients], float]:
    """(tensor name of `names` → gradients of the mean KL(reference ‖ candidate), that mean in nats per position).

    `read` gives the candidate's tensors; `reference` is what leaves the last block of the reference on the same
    windows (`Tape.states[-1]`), `teacher` the reference's skeleton.
    """
    skeleton = Skeleton(info, read, device=teacher.device, dtype=dtype)
    tape = Tape(skeleton, tokens_NL, scratch, name="candidate", progress=progress, check_cancelled=check_cancelled)
    gatherer = Gatherer(names, tape.positions, scratch)
    objective = FromReference(skeleton, reference, teacher)
    backward(tape, objective, visit=gatherer.visit, finish=gatherer.finish, phase="divergence gradients")
    return gatherer.found, objective.total / tape.positions
