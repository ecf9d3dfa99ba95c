"""The two models of a comparison, from aliases to checkpoints that an engine can load."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.request import JobRequest
from app.models.checkpoint import CheckpointInfo, fingerprint, inspect, tokenizer_fingerprint
from app.models.packing import check_served, kept_packed
from app.models.registry import ModelEntry, load_registry
from app.models.steps.others import other_of
from app.models.tokenizers import compare_tokenizers
from workers.distributions.head import Head
from workers.measuring.calibration_text import loader_without_sampler
from workers.process.handler import JobContext
from workers.surgery.calibration_text import CalibrationTexts
from workers.surgery.callbacks import MakeRoom, room_enough
from workers.surgery.modified import Modified
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

_DTYPES: Final = {"float16": torch.float16, "float32": torch.float32}


@dataclass
class Side:
    """One model: its checkpoint, what is known of it, and (once asked for) its head. `dtype` is the one of models.toml,
    which the engine runs it in."""

    alias: str
    info: CheckpointInfo
    weights: str
    tokenizer: Path
    dtype: str = "bfloat16"
    _head: Head | None = field(default=None, repr=False)

    @property
    def head(self) -> Head:
        """The head in the engine's dtype, read at the first call."""
        if self._head is None:
            self._head = Head.load(self.info.path, dtype=self.torch_dtype)
        return self._head

    @property
    def torch_dtype(self) -> torch.dtype:
        """What the engine's weights are; `auto` is bfloat16."""
        return _DTYPES.get(self.dtype, torch.bfloat16)


@dataclass
class Sides:
    """Both models. `modified` is the candidate after its recipe, kept from eviction until released."""

    reference: Side
    candidate: Side
    modified: Modified
    dtype: str
    tokenizer_fingerprint: str

    @property
    def packed(self) -> bool:
        """Whether the candidate is packed and runs on other kernels than the reference. Plain weights run on the same
        ones, whatever dtype they are stored in: the engine takes them to its own."""
        candidate = self.candidate.info
        return candidate.quantization is not None and candidate.scheme != self.reference.info.scheme

    @property
    def unpacked(self) -> bool:
        """Whether it is packed so, and its plain twin, by which its kernels are distinguished, can be made."""
        return self.packed and not kept_packed(self.candidate.info.quantization)


def checkpoint_store(context: JobContext) -> CheckpointStore:
    """Where modified checkpoints are kept."""
    return CheckpointStore(context.settings.home / "checkpoints", context.settings.checkpoint_budget_bytes)


def resolve(request: JobRequest, context: JobContext) -> tuple[Side, ModelEntry, CheckpointInfo]:
    """The reference, and the candidate before its recipe.

    Raises UNKNOWN_MODEL, the CHECKPOINT_* errors of `inspect`, VOCABULARY_MISMATCH if the two would not read the
    same tokens, INVALID_REQUEST if models.toml gives them different dtypes.
    """
    registry = load_registry(context.settings.models_file)
    entry = registry.resolve(request.reference.model, pointer="/reference/model")
    origin_entry = registry.resolve(request.candidate.model, pointer="/candidate/model")
    info = inspect(entry.checkpoint_path(pointer="/reference/model"), pointer="/reference/model")
    origin = inspect(origin_entry.checkpoint_path(pointer="/candidate/model"), pointer="/candidate/model")
    check_served(info.quantization, entry.alias, pointer="/reference/model")
    check_served(origin.quantization, origin_entry.alias, pointer="/candidate/model")
    if entry.dtype != origin_entry.dtype:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"models.toml runs {entry.alias} in {entry.dtype} and {origin_entry.alias} in {origin_entry.dtype}",
            hint="give both the same dtype; otherwise the difference includes rounding",
            pointer="/candidate/model",
        )
    if info.vocabulary != origin.vocabulary:
        raise HemostatError(
            ErrorCode.VOCABULARY_MISMATCH,
            f"{entry.alias} has {info.vocabulary} tokens, {origin_entry.alias} has {origin.vocabulary}",
            hint="give models with the same vocabulary",
            pointer="/candidate/model",
        )
    tokenizer = entry.tokenizer_path(pointer="/reference/model")
    compare_tokenizers(
        tokenizer,
        origin_entry.tokenizer_path(pointer="/candidate/model"),
        names=(entry.alias, origin_entry.alias),
        pointer="/candidate/model",
    )
    weights = fingerprint(info.path, check_cancelled=context.check_cancelled)
    return Side(entry.alias, info, weights, tokenizer, entry.dtype), origin_entry, origin


def modify(
    request: JobRequest,
    reference: Side,
    entry: ModelEntry,
    origin: CheckpointInfo,
    context: JobContext,
    *,
    device: str,
    calibration: CalibrationTexts | None = None,
    make_room: MakeRoom = room_enough,
) -> Sides:
    """The candidate after its recipe, made on `device` or from the checkpoint store where it was made before.

    `make_room` is asked for what steps hold on the device. `calibration` gives the text of steps that look at
    activations (default: from every source but the reference's own samples).
    """
    store = checkpoint_store(context)
    registry = load_registry(context.settings.models_file)
    modified = apply(
        origin,
        request.candidate.recipe,
        device=device,
        store=store,
        reference=None if reference.info.path == origin.path else reference.info,
        others=lambda step: other_of(step, registry, context.settings, pointer="/candidate/recipe"),
        calibration=calibration
        or loader_without_sampler(context.settings, reference.tokenizer, check_cancelled=context.check_cancelled),
        make_room=make_room,
        progress=lambda phase, done, total: context.progress(
            "modify" if phase in {"surgery", "thresholds", "write"} else f"modify: {phase}", done, total
        ),
        check_cancelled=context.check_cancelled,
    )
    if request.candidate.recipe:
        context.observe("store_misses" if modified.built else "store_hits", 1, store="checkpoint")
        context.observe("store_bytes", folder_bytes(store.root), store="checkpoint")
    candidate = Side(entry.alias, inspect(modified.path), modified.fingerprint, reference.tokenizer, entry.dtype)
    return Sides(reference, candidate, modified, entry.dtype, tokenizer_fingerprint(reference.tokenizer))


def folder_bytes(folder: Path) -> int:
    """Bytes of the files below a folder."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(path) / name).stat().st_size
            except FileNotFoundError:  # evicted meanwhile
                continue
    return total
