"""Calibrators on disk: `calibrator.json` says what it is, `tensors.safetensors` holds its numbers.

    {"format": "hemostat.calibrator/1", "kind": …, "parameters": {…}, "hidden_size": …, "vocabulary": …,
     "tensors": {name: {"dtype": …, "shape": […]}}, "sha256": of tensors.safetensors}

Dtypes are kept. The folder appears whole, by a rename. What is loaded is checked before any of it is used: checksum,
names, dtypes, shapes, every number finite, and on request whether it is of the model at hand.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of

from app.contracts.errors import ErrorCode, HemostatError
from workers.calibrators.base import Base
from workers.calibrators.identity import Identity
from workers.calibrators.kinds import Chain, restore
from workers.calibrators.protocol import Calibrator

__all__ = ["CALIBRATOR_FILE", "FORMAT", "TENSORS_FILE", "Chain", "Identity", "load", "save"]

FORMAT = "hemostat.calibrator/1"
CALIBRATOR_FILE = "calibrator.json"
TENSORS_FILE = "tensors.safetensors"


def save(calibrator: Calibrator, folder: Path) -> Path:
    """Writes both files into `folder` and returns it.

    A folder that is not there yet appears whole; in one that is there each file is replaced whole, the description
    last. Equal calibrators give equal bytes. ValueError for a number that is not finite.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in calibrator.tensors().items()}
    for name, tensor in tensors.items():
        if not _finite(tensor):
            raise ValueError(f"{name} holds a number that is not finite")
    data = bytes_of(dict(sorted(tensors.items())))
    told: dict[str, Any] = {
        "format": FORMAT,
        "kind": calibrator.kind,
        "parameters": dict(calibrator.describe()),
        "hidden_size": getattr(calibrator, "hidden_size", None),
        "vocabulary": getattr(calibrator, "vocabulary", None),
        "tensors": {name: _layout(tensor) for name, tensor in sorted(tensors.items())},
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    text = json.dumps(told, indent=1, sort_keys=True, allow_nan=False) + "\n"
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write(made / TENSORS_FILE, data)
        _write(made / CALIBRATOR_FILE, text.encode())
        if folder.is_dir():
            for name in (TENSORS_FILE, CALIBRATOR_FILE):
                (made / name).replace(folder / name)
        else:
            made.chmod(0o755)
            made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return folder


def load(folder: Path, *, hidden_size: int | None = None, vocabulary: int | None = None) -> Base:
    """The calibrator of a folder, on the CPU.

    Raises PROFILE_NOT_FOUND if there is none, and PROFILE_CORRUPT if it is damaged, of an unknown kind, or holds a
    number that is not finite. Raises PROFILE_MISMATCH if it is not for models of the given `hidden_size` and
    `vocabulary`.
    """
    try:
        text = (folder / CALIBRATOR_FILE).read_bytes()
        data = (folder / TENSORS_FILE).read_bytes()
    except FileNotFoundError as error:
        raise HemostatError(
            ErrorCode.PROFILE_NOT_FOUND,
            f"profile {folder.name} has no {Path(str(error.filename)).name}",
            hint="fit it again, or choose another version",
        ) from error
    calibrator = _parsed(folder.name, text, data)
    for what, own, wanted in (
        ("hidden states of width", calibrator.hidden_size, hidden_size),
        ("a vocabulary of", calibrator.vocabulary, vocabulary),
    ):
        if own is not None and wanted is not None and own != wanted:
            raise HemostatError(
                ErrorCode.PROFILE_MISMATCH,
                f"profile {folder.name} is for {what} {own}, the model has {wanted}",
                hint="use a profile that was fitted for this model",
            )
    return calibrator


def _parsed(name: str, text: bytes, data: bytes) -> Base:
    try:
        told = json.loads(text)
        if told["format"] != FORMAT:
            raise ValueError(f"its format is {told['format']!r}")
        if hashlib.sha256(data).hexdigest() != told["sha256"]:
            raise ValueError("its tensors are not those that were saved")
        tensors = tensors_of(data)
        if {key: _layout(tensor) for key, tensor in tensors.items()} != told["tensors"]:
            raise ValueError("its tensors have other names, shapes or dtypes than it says")
        for key, tensor in tensors.items():
            if not _finite(tensor):
                raise ValueError(f"{key} holds a number that is not finite")
        made = restore(told["kind"], told["parameters"], tensors)
        if (made.hidden_size, made.vocabulary) != (told["hidden_size"], told["vocabulary"]):
            raise ValueError("it is of another model than it says")
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise HemostatError(
            ErrorCode.PROFILE_CORRUPT,
            f"profile {name} cannot be used: {error}",
            hint="delete it and fit it again",
        ) from error
    return made


def _layout(tensor: torch.Tensor) -> dict[str, Any]:
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}


def _finite(tensor: torch.Tensor) -> bool:
    return not tensor.dtype.is_floating_point or bool(tensor.isfinite().all())


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o644)
