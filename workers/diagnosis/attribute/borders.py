"""A model's hidden states at all of its layer borders, on disk, and any chain of layers run on from one of them.

Border 0 is what enters layer 0, border i what leaves layer i − 1. One layer's weights are in memory at a time; the
states lie in mapped files, so memory does not grow with depth or with text. Every batch has the same shape in
every run. So a chain of a model's own layers from its own border gives its own states bit for bit.

Names: N windows, L tokens of a window, D hidden size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo
from app.models.layer_names import in_layer
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.blockwise.walk import BATCH_TOKENS, Activations
from workers.surgery.callbacks import CheckCancelled, Progress, never_cancelled, no_progress


class Runner:
    """A skeleton's layers, called on batches of windows of one text. Raises what `Skeleton.calls` raises."""

    def __init__(self, skeleton: Skeleton, tokens_NL: torch.Tensor) -> None:
        self.skeleton, self.tokens_NL = skeleton, tokens_NL
        self._step = max(1, BATCH_TOKENS // tokens_NL.shape[1])
        self._calls: dict[int, list[dict[str, Any]]] = {}

    @property
    def layers(self) -> int:
        """How many there are."""
        return len(self.skeleton.layers)

    def batches(self) -> Iterator[tuple[int, int]]:
        """(first, end) windows of each batch."""
        count = len(self.tokens_NL)
        return ((start, min(count, start + self._step)) for start in range(0, count, self._step))

    def embedded(self, start: int, end: int) -> torch.Tensor:
        """(n, L, D): what enters layer 0."""
        hidden_NLD, calls = self.skeleton.calls(self.tokens_NL[start:end])
        self._calls.setdefault(end - start, calls)
        return hidden_NLD

    def prepare(self, windows: int) -> None:
        """Finds what layers are called with on a batch of so many windows, where it is not known yet."""
        if windows not in self._calls:
            self.embedded(0, windows)

    @torch.no_grad()
    def call(self, layer: int, hidden_NLD: torch.Tensor) -> torch.Tensor:
        """One layer, whose weights are in memory (`skeleton.block`), on one batch."""
        self.prepare(len(hidden_NLD))
        found: Any = self.skeleton.layers[layer](hidden_NLD, **self._calls[len(hidden_NLD)][layer])
        leaving_NLD: torch.Tensor = found[0] if isinstance(found, tuple) else found
        return leaving_NLD


# A layer of a chain: whose, and which.
Link = tuple[Runner, int]


class Borders:
    """Every border of one model on one text, under `scratch/name`.

    A later attempt that finds the folder goes on after the last complete border, if tokens, depth and dtype are the
    same. The caller uses another folder for other weights. Raises
    `HemostatError(ACTIVATIONS_NOT_FINITE)` if a layer's output is not finite, OSError where the disk is full.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        tokens_NL: torch.Tensor,
        scratch: Path,
        *,
        name: str,
        progress: Progress = no_progress,
        check_cancelled: CheckCancelled = never_cancelled,
    ) -> None:
        self.runner = Runner(skeleton, tokens_NL)
        self._folder = scratch / name
        self._folder.mkdir(parents=True, exist_ok=True)
        windows, length = tokens_NL.shape
        self._shape = (windows, length, skeleton.info.hidden_size)
        self._files: list[Activations] = []
        self._name = name
        self._make(progress, check_cancelled)

    def __len__(self) -> int:
        return len(self._files)

    @property
    def hidden_size(self) -> int:
        """D."""
        return self._shape[2]

    @property
    def dtype(self) -> torch.dtype:
        """Of the states."""
        return self.runner.skeleton.dtype

    def read(self, border: int, start: int, end: int) -> torch.Tensor:
        """(n, L, D): windows `start` to `end` at a border, a copy."""
        return self._files[border].read(start, end)

    def _make(self, progress: Progress, check_cancelled: CheckCancelled) -> None:
        runner = self.runner
        marker = self._folder / "complete"
        key = _key(runner, self._shape, self.dtype)
        known, count = marker.read_text().split(" ") if marker.is_file() else ("", "0")
        complete = int(count) if known == key else 0
        for border in range(runner.layers + 1):
            check_cancelled()
            progress(self._name, border, runner.layers + 1)
            file = self._folder / f"{border:04d}.bin"
            if border < complete and file.is_file():
                self._files.append(Activations(file, self._shape, self.dtype, runner.skeleton.device, keep=True))
                continue
            states = Activations(file, self._shape, self.dtype, runner.skeleton.device)
            if border:
                runner.skeleton.block(border - 1)
            for start, end in runner.batches():
                check_cancelled()
                if border:
                    found_NLD = runner.call(border - 1, self._files[border - 1].read(start, end))
                else:
                    found_NLD = runner.embedded(start, end)
                if not bool(torch.isfinite(found_NLD).all()):
                    raise HemostatError(
                        ErrorCode.ACTIVATIONS_NOT_FINITE,
                        f"the output of layer {border - 1} is NaN or infinite",
                        hint="the model overflows in its dtype: check the earlier layers",
                    )
                states.write(start, found_NLD)
            if border:
                runner.skeleton.release(border - 1)
            self._files.append(states)
            partial = self._folder / ".complete"
            partial.write_text(f"{key} {border + 1}")
            partial.replace(marker)
        progress(self._name, runner.layers + 1, runner.layers + 1)


def layer_elements(info: CheckpointInfo) -> int:
    """Elements of a decoder layer, the mean of all."""
    return sum(tensor.elements for name, tensor in info.tensors.items() if in_layer(name)) // info.layers


def run_chain(
    chain: Sequence[Link],
    entering: Borders,
    border: int,
    *,
    check_cancelled: CheckCancelled = never_cancelled,
) -> torch.Tensor:
    """(N, L, D): what leaves the last link. The first gets `entering`'s states at `border`, in the batches of every
    run. Without a link: the states themselves. One layer's weights are in memory at a time."""
    states_NLD = entering.read(border, 0, len(entering.runner.tokens_NL))
    # copies: a product may round otherwise where its operand begins elsewhere in memory
    states = [states_NLD[start:end].clone() for start, end in chain[0][0].batches()] if chain else [states_NLD]
    for runner, layer in chain:
        runner.skeleton.block(layer)
        for index, hidden_NLD in enumerate(states):
            check_cancelled()
            states[index] = runner.call(layer, hidden_NLD.to(runner.skeleton.dtype))
        runner.skeleton.release(layer)
    return torch.cat(states)


def _key(runner: Runner, shape: tuple[int, ...], dtype: torch.dtype) -> str:
    digest = hashlib.sha256(repr((shape, runner.layers, str(dtype))).encode())
    digest.update(runner.tokens_NL.to(torch.int64).contiguous().numpy().tobytes())
    return digest.hexdigest()
