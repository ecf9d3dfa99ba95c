"""Corrections of the residual stream in vLLM's decoder layers: a checkpoint's own, and those of served versions.

A decoder layer of vLLM returns the stream, or two parts whose sum it is: the next norm adds them. A corrected row is
returned whole in the second part, with zeros in the first one; rows that are not corrected are not touched.

Names: T rows, D hidden size.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from app.contracts.blocks import FILE, SECTION, blocks_in
from app.contracts.errors import ErrorCode, HemostatError
from app.files import write_atomically
from app.models.shapes import LAYOUTS
from workers.calibrators.blocks import BlockCorrection, Blocks
from workers.engine.serving.corrections import on_one_thread

# Corrections, and the rows (int64) that they are for; None: all.
Part = tuple[Blocks, torch.Tensor | None]


def write(folder: Path, blocks: Blocks) -> None:
    """Gives a checkpoint corrections: their file, then the section of config.json."""
    blocks.save(folder / FILE)
    config = json.loads((folder / "config.json").read_bytes())
    config[SECTION] = {"sha256": hashlib.sha256((folder / FILE).read_bytes()).hexdigest()}
    write_atomically(folder / "config.json", (json.dumps(config, indent=2) + "\n").encode())


def attach(checkpoint: Path, blocks: Blocks, folder: Path) -> None:
    """Makes `folder` the checkpoint with corrections, by links to its other files. What is there is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in checkpoint.iterdir():
        if file.name == "config.json":
            shutil.copyfile(file, folder / file.name)
        else:
            (folder / file.name).symlink_to(file.resolve())
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
            hint="fetch both from the same place",
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
            f"the decoder layers of {architecture} are not known, so their stream cannot be corrected",
            hint="block corrections take " + ", ".join(sorted(LAYOUTS)),
        )


def install(model: Any, parts: Callable[[], Sequence[Part]]) -> list[Any]:
    """From now on `parts` correct the stream after each decoder layer of a vLLM model, in turn; the hooks' handles."""
    return [
        layer.register_forward_hook(partial(_after, index, parts)) for index, layer in enumerate(model.model.layers)
    ]


def _after(index: int, parts: Callable[[], Sequence[Part]], layer: Any, _: Any, output: Any) -> Any:
    for blocks, rows_G in parts():
        one = blocks.get(index)
        if one is not None:
            output = _corrected(layer, output, one, rows_G)
    return output


def _corrected(layer: Any, output: Any, one: BlockCorrection, rows_G: torch.Tensor | None) -> Any:
    parts = [output] if isinstance(output, torch.Tensor) else list(output)
    if len(parts) > 2 or not all(isinstance(part, torch.Tensor) for part in parts):
        raise HemostatError(
            ErrorCode.CHECKPOINT_UNSUPPORTED,
            f"{type(layer).__name__} returns neither the stream nor two parts of it",
            hint="this version of vLLM is not supported with block corrections",
        )
    *emptied, kept_TD = parts  # the second part of two, which may be in float32
    with on_one_thread(kept_TD.device, len(kept_TD)):
        if rows_G is None:
            corrected_TD = one(sum(emptied, kept_TD))
            return (*map(torch.zeros_like, emptied), corrected_TD) if emptied else corrected_TD
        stream_GD = sum((part.index_select(0, rows_G) for part in emptied), kept_TD.index_select(0, rows_G))
        kept_TD.index_copy_(0, rows_G, one(stream_GD))
        for part in emptied:
            part.index_fill_(0, rows_G, 0)
    return output
