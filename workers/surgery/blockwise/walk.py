"""Through the blocks of a model, one after the other, with the activations between them in a mapped file.

    for block in walk.blocks():
        moments = {group: SecondMoment(block.inputs(group)) for group in block.groups}
        block.collect(moments)                 # one pass over the calibration text
        ... change block.linears[name].weight.data ...
                                               # going on runs the block again, changed, for the next one's inputs

Names: N windows, L tokens of a window, D hidden size, T tokens of a batch, I input dimension of a layer.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from app.contracts.errors import ErrorCode, HemostatError
from workers.surgery.blockwise.observers import Observer
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.callbacks import CheckCancelled, Progress, never_cancelled, no_progress

# Tokens that one call of a block is given: a second or so of work on two cores for small models.
BATCH_TOKENS = 2048
# Linear layers whose inputs are one and the same tensor: (the first of them, …).
Group = tuple[str, ...]


class Activations:
    """(N, L, D) hidden states in a mapped file, read on to `device` and written by batches of windows; with `keep`,
    those that the file has. Raises OSError if the disk has no room for them."""

    def __init__(
        self,
        path: Path,
        shape: tuple[int, int, int],
        dtype: torch.dtype,
        device: torch.device,
        *,
        keep: bool = False,
    ) -> None:
        self.shape, self.dtype, self.device = shape, dtype, device
        bytes_ = torch.empty((), dtype=dtype).element_size()
        # A page of a sparse file that the disk has no room for would end the process when it is written to.
        with path.open("r+b" if keep else "wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, shape[0] * shape[1] * shape[2] * bytes_)
        self._map = np.memmap(path, np.uint8, mode="r+", shape=(shape[0], shape[1] * shape[2] * bytes_))

    def write(self, start: int, hidden_NLD: torch.Tensor) -> None:
        """Windows from `start` on."""
        flat = hidden_NLD.to(self.dtype).contiguous().reshape(len(hidden_NLD), -1)
        self._map[start : start + len(hidden_NLD)] = flat.view(torch.uint8).cpu().numpy()

    def read(self, start: int, end: int) -> torch.Tensor:
        """Windows `start` to `end`, a copy."""
        raw = torch.from_numpy(np.array(self._map[start:end]))
        return raw.view(self.dtype).reshape(-1, *self.shape[1:]).to(self.device)


@dataclass
class Block:
    """One decoder layer with its weights in memory. `linears`: tensor name (`model.layers.3.mlp.up_proj.weight`) →
    module; `groups`: those that share their input, in the order in which they are run; `prefix`: of its tensors."""

    index: int
    module: nn.Module
    prefix: str
    linears: dict[str, nn.Linear]
    groups: tuple[Group, ...]
    _walk: "Walk"

    def inputs(self, group: Group) -> int:
        """Input dimension of a group."""
        return self.linears[group[0]].in_features

    def group_of(self, name: str) -> Group:
        """The group of a layer."""
        return next(group for group in self.groups if name in group)

    def collect(self, observers: Mapping[Group, Observer]) -> None:
        """One pass of the block over all calibration text; each observer sees its group's inputs (T, I).

        Raises `HemostatError(ACTIVATIONS_NOT_FINITE)` if an input is NaN or infinite, or its square is.
        """
        with ExitStack() as stack:
            for group, observer in observers.items():
                stack.enter_context(_hook(self.linears[group[0]], observer))
            for _ in self.outputs():
                pass
        for group, observer in observers.items():
            if not observer.finite():
                raise HemostatError(
                    ErrorCode.ACTIVATIONS_NOT_FINITE,
                    f"the inputs of {group[0]} are NaN or infinite on the calibration text, or too large to be squared "
                    "in float32",
                    hint="the model overflows in its dtype; check the layers before it",
                )

    @torch.no_grad()
    def outputs(self) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """One pass: (first window, hidden states in (n, L, D), hidden states out (n, L, D)) of each batch, with the
        weights as they are at that moment."""
        walk = self._walk
        for start, end in walk.batches():
            walk.check_cancelled()
            entering_NLD = walk.entering.read(start, end)
            yield start, entering_NLD, walk.call(self.index, entering_NLD)


class Walk:
    """One walk through a model's blocks over calibration text.

    `tokens_NL`: windows of token ids, all of one length. `scratch`: a folder for the mapped files. Raises what
    `Skeleton` raises.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        tokens_NL: torch.Tensor,
        scratch: Path,
        *,
        phase: str = "blocks",
        progress: Progress = no_progress,
        check_cancelled: CheckCancelled = never_cancelled,
    ) -> None:
        self.skeleton, self.tokens_NL = skeleton, tokens_NL
        self.check_cancelled, self._progress, self._phase = check_cancelled, progress, phase
        windows, length = tokens_NL.shape
        self._step = max(1, BATCH_TOKENS // length)
        shape = (windows, length, skeleton.info.hidden_size)
        self.entering = Activations(scratch / f"{phase}.bin", shape, skeleton.dtype, skeleton.device)
        self._calls: dict[int, list[dict[str, Any]]] = {}
        for start, end in self.batches():
            check_cancelled()
            hidden_NLD, calls = skeleton.calls(tokens_NL[start:end])
            self._calls.setdefault(end - start, calls)
            self.entering.write(start, hidden_NLD)

    def batches(self) -> Iterator[tuple[int, int]]:
        """(first, end) windows of each batch."""
        count = len(self.tokens_NL)
        return ((start, min(count, start + self._step)) for start in range(0, count, self._step))

    @torch.no_grad()
    def call(self, index: int, hidden_NLD: torch.Tensor) -> torch.Tensor:
        """One block on one batch, with the weights that it has now."""
        found: Any = self.skeleton.layers[index](hidden_NLD, **self._calls[len(hidden_NLD)][index])
        leaving_NLD: torch.Tensor = found[0] if isinstance(found, tuple) else found
        return leaving_NLD

    def kwargs(self, windows: int, index: int) -> dict[str, Any]:
        """What a block is called with beside the hidden states, for a batch of so many windows (as `batches` has)."""
        return self._calls[windows][index]

    def blocks(self) -> Iterator[Block]:
        """Every block in turn; going on runs it once more, as it is then, to have what enters the next one.

        Raises `HemostatError(ACTIVATIONS_NOT_FINITE)` if a block's output is not finite.
        """
        count = len(self.skeleton.layers)
        for index in range(count):
            self.check_cancelled()
            self._progress(self._phase, index, count)
            module = self.skeleton.block(index)
            block = self._block(index, module)
            yield block
            if index + 1 < count:
                self._advance(block)
            self.skeleton.release(index)
        self._progress(self._phase, count, count)

    def _advance(self, block: Block) -> None:
        for start, _, leaving_NLD in block.outputs():
            check_states(leaving_NLD, block.index)
            self.entering.write(start, leaving_NLD)

    def _block(self, index: int, module: nn.Module) -> Block:
        prefix = f"model.layers.{index}."
        linears = {f"{prefix}{name}.weight": one for name, one in module.named_modules() if isinstance(one, nn.Linear)}
        return Block(index, module, prefix, linears, self._groups(index, linears), self)

    @torch.no_grad()
    def _groups(self, index: int, linears: dict[str, nn.Linear]) -> tuple[Group, ...]:
        """Which layers are given the same tensor, told by one call on the first batch."""
        seen: dict[int, list[str]] = {}
        keep: list[torch.Tensor] = []  # so that no address is used twice

        with ExitStack() as stack:
            for name, linear in linears.items():

                def note(_: nn.Module, args: tuple[Any, ...], name: str = name) -> None:
                    keep.append(args[0])
                    seen.setdefault(args[0].data_ptr(), []).append(name)

                handle = linear.register_forward_pre_hook(note)
                stack.callback(handle.remove)
            start, end = next(self.batches())
            self.call(index, self.entering.read(start, end))
        return tuple(tuple(names) for names in seen.values())


def check_states(leaving_NLD: torch.Tensor, index: int) -> None:
    """Raises `HemostatError(ACTIVATIONS_NOT_FINITE)` unless all that leaves block `index` is finite."""
    if not bool(torch.isfinite(leaving_NLD).all()):
        raise HemostatError(
            ErrorCode.ACTIVATIONS_NOT_FINITE,
            f"the output of layer {index} is NaN or infinite on the calibration text",
            hint="the model overflows in its dtype, before or after the change: check the earlier layers",
        )


class _hook(ExitStack):  # noqa: N801 - used as a function
    """For the length of a `with`, an observer sees a layer's inputs as (T, I)."""

    def __init__(self, linear: nn.Linear, observer: Observer) -> None:
        super().__init__()

        def see(_: nn.Module, args: tuple[Any, ...]) -> None:
            observer.see(args[0].detach().reshape(-1, args[0].shape[-1]))

        self.callback(linear.register_forward_pre_hook(see).remove)
