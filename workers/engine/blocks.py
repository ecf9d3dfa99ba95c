"""Corrections of the residual stream in vLLM's decoder layers: a checkpoint's own, and those of served versions.

A decoder layer of vLLM returns the stream, or two parts whose sum it is: the next norm adds them. A corrected row is
returned whole in the second part, with zeros in the first one; rows that are not corrected keep every bit.

Names: T rows, D hidden size, S slots, R rank.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from app.contracts.blocks import FILE, SECTION, blocks_in
from app.contracts.errors import ErrorCode, HemostatError
from app.files import write_atomically
from app.models.shapes import LAYOUTS
from workers.calibrators.blocks import BlockCorrection, Blocks, corrected
from workers.engine.serving.corrections import on_one_thread
from workers.surgery.files import link_checkpoint

# Up to so many rows one thread is faster than two of which one has to be woken (the demo model: 84 µs, not 248).
_FEW_ROWS: Final = 64


def write(folder: Path, blocks: Blocks) -> None:
    """Gives a checkpoint corrections: their file, then the section of config.json."""
    blocks.save(folder / FILE)
    config = json.loads((folder / "config.json").read_bytes())
    config[SECTION] = {"sha256": hashlib.sha256((folder / FILE).read_bytes()).hexdigest()}
    write_atomically(folder / "config.json", (json.dumps(config, indent=2) + "\n").encode())


def attach(checkpoint: Path, blocks: Blocks, folder: Path) -> None:
    """Makes `folder` the checkpoint with corrections, by links to its other files. What is there is removed."""
    link_checkpoint(checkpoint, folder)
    write(folder, blocks)


def read(checkpoint: Path, device: torch.device) -> Blocks | None:
    """The corrections of a checkpoint; None without a section.

    Raises CHECKPOINT_UNSUPPORTED for an architecture whose decoder layers are not known. Raises
    CHECKPOINT_SHAPE_MISMATCH if the corrections are of a model of another size, CHECKPOINT_INCOMPLETE without the file.
    Raises CHECKPOINT_CORRUPT if section or file is damaged, or if the file is not that of the section.
    """
    config = json.loads((checkpoint / "config.json").read_bytes())
    section = blocks_in(config)
    if section is None:
        return None
    check_architecture(config["architectures"][0])
    blocks = Blocks.load(checkpoint / FILE, device)
    if hashlib.sha256((checkpoint / FILE).read_bytes()).hexdigest() != section.sha256:
        raise HemostatError(
            ErrorCode.CHECKPOINT_CORRUPT,
            f"{FILE} is not the file that config.json names",
            hint="fetch both from the same revision",
        )
    wanted = (config["num_hidden_layers"], config["hidden_size"])
    if (blocks.layers, blocks.hidden_size) != wanted:
        raise HemostatError(
            ErrorCode.CHECKPOINT_SHAPE_MISMATCH,
            f"{FILE} is for {blocks.layers} blocks of width {blocks.hidden_size}, config.json says {wanted[0]} of "
            f"width {wanted[1]}",
            hint="fit the corrections for this checkpoint",
        )
    return blocks


def check_architecture(architecture: str) -> None:
    """Raises CHECKPOINT_UNSUPPORTED for an architecture whose decoder layers are not known."""
    if architecture not in LAYOUTS:
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED,
            f"the decoder layers of {architecture} are not known, so Hemostat cannot correct them",
            hint="block corrections take " + ", ".join(sorted(LAYOUTS)),
        )


class Slots:
    """The corrections that the layers of a vLLM model make from now on, and which of them each row of a pass is for.

    They lie in tensors that stay where they are, and are given to one operation per layer. So eager and compiled
    engines run the same code, a CUDA graph can hold it, and other corrections need no new compilation. There are
    `count` slots for corrections of rank `rank` at most. A pass has `rows` rows at most; 1: all rows are treated alike.
    """

    def __init__(self, model: Any, name: str, *, width: int, rows: int, count: int, rank: int) -> None:
        device = next(model.parameters()).device
        self.slot_T = torch.zeros(rows, dtype=torch.int64, device=device)  # counted from 1; 0: the row is left alone
        self.rows_S = torch.zeros(count, dtype=torch.int64, device="cpu")  # how many rows are for each slot
        self._name, self._layers = name, list(model.model.layers)
        self._held: list[str] = [""] * count
        for layer in self._layers:
            layer.add_module(name, _Layer(self.slot_T, self.rows_S, rank, width))
        self._hooks = [layer.register_forward_hook(partial(_after, name)) for layer in self._layers]

    def place(self, wanted: Sequence[Blocks | None]) -> list[int]:
        """The slot of each of the wanted, counted from 1; 0 for None, and if no slot is left."""
        digests = dict.fromkeys(one.digest for one in wanted if one is not None)
        for one in wanted:
            if one is not None and one.digest not in self._held:
                free = next((slot for slot, held in enumerate(self._held) if held not in digests), None)
                if free is not None:
                    self._fill(free, one)
        return [
            0 if one is None or one.digest not in self._held else self._held.index(one.digest) + 1 for one in wanted
        ]

    def mark(self, slots: Sequence[int]) -> None:
        """Of the next pass, the first rows are for these; the rest is left alone."""
        rows = [slots.count(slot) for slot in range(1, len(self._held) + 1)]
        if not any(rows) and not bool(self.rows_S.any()):
            return
        self.rows_S.copy_(torch.tensor(rows))
        self.slot_T[len(slots) :] = 0
        self.slot_T[: len(slots)] = torch.tensor(slots, dtype=torch.int64)

    def remove(self) -> None:
        """The layers make none of them any more."""
        for hook in self._hooks:
            hook.remove()
        for layer in self._layers:
            delattr(layer, self._name)

    def _fill(self, slot: int, blocks: Blocks) -> None:
        self._held[slot] = blocks.digest
        for index, layer in enumerate(self._layers):
            getattr(layer, self._name).fill(slot, blocks.get(index))


def correct_always(model: Any, name: str, blocks: Blocks) -> Slots:
    """From now on all rows are corrected."""
    rank = max((one.rank for one in blocks.values()), default=0)
    slots = Slots(model, name, width=blocks.hidden_size, rows=1, count=1, rank=rank)
    slots.mark(slots.place([blocks]))
    return slots


class _Layer(torch.nn.Module):
    """The slots of one layer. Buffers, so that a compiled model finds them as it finds its weights."""

    slot_T: torch.Tensor
    rows_S: torch.Tensor
    down_SRD: torch.Tensor
    up_SRD: torch.Tensor
    bias_SD: torch.Tensor
    limit_S: torch.Tensor

    def __init__(self, slot_T: torch.Tensor, rows_S: torch.Tensor, rank: int, width: int) -> None:
        super().__init__()
        count = len(rows_S)
        zeros = partial(torch.zeros, dtype=torch.float32, device=slot_T.device)
        held = {
            "slot_T": slot_T,
            "rows_S": rows_S,
            "down_SRD": zeros(count, rank, width),
            "up_SRD": zeros(count, rank, width),
            "bias_SD": zeros(count, width),
            "limit_S": zeros(count),
        }
        for name, tensor in held.items():
            self.register_buffer(name, tensor, persistent=False)

    def fill(self, slot: int, one: BlockCorrection | None) -> None:
        """The correction of a slot; None: rows that are for it are left alone, which the limit 0 says."""
        for tensor in (self.down_SRD, self.up_SRD, self.bias_SD, self.limit_S):
            tensor[slot] = 0
        if one is not None:
            self.down_SRD[slot, : one.rank] = one.down_RD
            self.up_SRD[slot, : one.rank] = one.up_DR.T
            self.bias_SD[slot] = one.bias_D
            self.limit_S[slot] = one.limit


def _after(name: str, layer: Any, _: Any, output: Any) -> Any:
    parts = [output] if isinstance(output, torch.Tensor) else list(output)
    if len(parts) > 2 or not all(isinstance(part, torch.Tensor) for part in parts):
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED,
            f"{type(layer).__name__} returns neither its output nor the two parts of it",
            hint="serve the model without block corrections: this version of vLLM does not support them",
        )
    held = getattr(layer, name)
    torch.ops.hemostat.correct_blocks(
        parts[-1],  # of two, this one may be in float32
        parts[0] if len(parts) > 1 else None,
        held.slot_T,
        held.rows_S,
        held.down_SRD,
        held.up_SRD,
        held.bias_SD,
        held.limit_S,
    )
    return output


def _correct_blocks(
    kept_TD: torch.Tensor,
    emptied_TD: torch.Tensor | None,
    slot_T: torch.Tensor,
    rows_S: torch.Tensor,
    down_SRD: torch.Tensor,
    up_SRD: torch.Tensor,
    bias_SD: torch.Tensor,
    limit_S: torch.Tensor,
) -> None:
    """A graph that is captured holds all slots: any of them may be used when it is replayed."""
    captured = kept_TD.is_cuda and torch.cuda.is_current_stream_capturing()
    rows = [1] * len(rows_S) if captured else rows_S.tolist()
    used = [slot for slot, count in enumerate(rows) if count]
    if not used:
        return
    slots = slice(used[0], used[-1] + 1)
    with on_one_thread(kept_TD.device, len(kept_TD), _FEW_ROWS):
        if kept_TD.device.type == "cpu" and sum(rows) == rows[used[0]] >= min(len(kept_TD), len(slot_T)):
            slot = used[0]
            _correct_all(kept_TD, emptied_TD, down_SRD[slot], up_SRD[slot], bias_SD[slot], limit_S[slot])
            return
        slot_T1 = slot_T[: len(kept_TD), None]
        at: int | torch.Tensor = slots.start  # rows of one slot gather nothing
        own_TR: torch.Tensor | None = None
        if len(used) > 1:
            at = (slot_T1[:, 0] - 1).clamp_min(0)
            own_TS = slot_T1 == torch.arange(slots.start + 1, slots.stop + 1, device=slot_T.device)
            own_TR = own_TS.repeat_interleave(down_SRD.shape[1], 1)
        limit_T1 = limit_S[:, None][at]
        corrected_TD = corrected(
            kept_TD if emptied_TD is None else emptied_TD + kept_TD,
            down_SRD[slots].flatten(0, 1),
            up_SRD[slots].flatten(0, 1),
            bias_SD[at],
            limit_T1,
            own_TR,
        )
        left_T1 = (slot_T1 == 0) | (limit_T1 == 0)
        torch.where(left_T1, kept_TD, corrected_TD, out=kept_TD)
        if emptied_TD is not None:
            emptied_TD.masked_fill_(~left_T1, 0)


def _correct_all(
    kept_TD: torch.Tensor,
    emptied_TD: torch.Tensor | None,
    down_RD: torch.Tensor,
    up_RD: torch.Tensor,
    bias_D: torch.Tensor,
    limit: torch.Tensor,
) -> None:
    """As `_correct_blocks` if all rows are for one slot, by less than half of its operations. For few rows the number
    of operations is what counts."""
    if not limit:
        return
    stream_TD = kept_TD if emptied_TD is None else emptied_TD + kept_TD
    kept_TD.copy_(corrected(stream_TD, down_RD, up_RD, bias_D, limit))
    if emptied_TD is not None:
        emptied_TD.zero_()


def _made_before(*_: object) -> None:
    """Nothing is made: what there is is changed."""


_LIBRARY: Final[Any] = torch.library.Library("hemostat", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define(
    "correct_blocks(Tensor(a!) kept_TD, Tensor(b!)? emptied_TD, Tensor slot_T, Tensor rows_S, Tensor down_SRD, "
    "Tensor up_SRD, Tensor bias_SD, Tensor limit_S) -> ()"
)
_LIBRARY.impl("correct_blocks", _correct_blocks, "CompositeExplicitAutograd")
torch.library.register_fake("hemostat::correct_blocks", _made_before, lib=_LIBRARY)
