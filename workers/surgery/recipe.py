"""A recipe applied to a checkpoint: a new checkpoint in the store, and a manifest of what was changed.

Pure: source, recipe and `SURGERY_VERSION` decide every byte of weights and configuration. Tensors go through one by
one, each through all of its steps, so that memory holds a few tensors whatever the model's size.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, inf, isnan, sqrt
from pathlib import Path

import torch

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.recipe import Recipe
from app.models.checkpoint import CheckpointInfo, fingerprint
from app.models.modules import Weight, check_step, natural_key
from app.models.recipes import canonical_json, recipe_fingerprint
from workers.surgery.callbacks import CheckCancelled, Progress, never_cancelled, no_progress
from workers.surgery.files import copy_companions
from workers.surgery.manifest import MANIFEST, Manifest, TensorChange
from workers.surgery.reading import TensorReader, open_tensors
from workers.surgery.safetensors_writer import DTYPES, SHARD_BYTES, Planned, plan_shards, write_shards
from workers.surgery.steps import Runner, make_runner
from workers.surgery.store import CheckpointStore, StoredCheckpoint

# Part of every key: raise it when the same recipe gives other weights than before.
SURGERY_VERSION = 1
POINTER = "/candidate/recipe"
_BLOCK = 1 << 22


@dataclass(frozen=True)
class Modified:
    """A checkpoint to be used, kept from eviction until `release` (or until the object is gone)."""

    path: Path
    fingerprint: str
    manifest: Manifest
    built: bool
    _entry: StoredCheckpoint | None = None

    def release(self) -> None:
        """Allows the store to evict it."""
        if self._entry is not None:
            self._entry.release()

    def __enter__(self) -> "Modified":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def apply(
    source: CheckpointInfo,
    recipe: Recipe,
    *,
    store: CheckpointStore,
    progress: Progress = no_progress,
    check_cancelled: CheckCancelled = never_cancelled,
    shard_bytes: int = SHARD_BYTES,
) -> Modified:
    """The modified checkpoint, from the store where it is there. The empty recipe gives the source itself.

    `progress("surgery", done, total)` counts tensors; `check_cancelled` is called before each. Raises `HemostatError`:
    what `check_step` raises, CHECKPOINT_NOT_FINITE for a source with NaN or infinity in any tensor, DISK_FULL.
    """
    source_fingerprint = fingerprint(source.path, check_cancelled=check_cancelled)
    if not recipe:
        return Modified(source.path, source_fingerprint, _untouched(source, source_fingerprint), built=False)
    weights = [check_step(source, step, pointer=f"{POINTER}/{index}") for index, step in enumerate(recipe)]
    key = _key(source_fingerprint, recipe)

    def build(folder: Path) -> None:
        surgery = _Surgery(source, recipe, weights, progress, check_cancelled)
        surgery.write(folder, key, source_fingerprint, shard_bytes)

    entry = store.get_or_build(key, build, expected_bytes=source.bytes, check_cancelled=check_cancelled)
    manifest = Manifest.model_validate_json((entry.path / MANIFEST).read_bytes())
    return Modified(entry.path, manifest.fingerprint, manifest, entry.built, entry)


def _key(source_fingerprint: str, recipe: Recipe) -> str:
    named = {"source": source_fingerprint, "recipe": canonical_json(recipe), "surgery": SURGERY_VERSION}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


class _Surgery:
    """One application of a recipe."""

    def __init__(
        self,
        source: CheckpointInfo,
        recipe: Recipe,
        weights: Sequence[Sequence[Weight]],
        progress: Progress,
        check_cancelled: CheckCancelled,
    ) -> None:
        self._source = source
        self._recipe = recipe
        self._runners: list[Runner] = [make_runner(step) for step in recipe]
        self._addressed = [{weight.name: weight for weight in chosen} for chosen in weights]
        self._progress = progress
        self._check_cancelled = check_cancelled
        self._squared_error = self._squared_norm = 0.0
        self._changes: list[TensorChange] = []

    def write(self, folder: Path, key: str, source_fingerprint: str, shard_bytes: int) -> None:
        """Fills `folder` with the whole checkpoint and its manifest."""
        began = time.monotonic()
        tensors = self._source.tensors
        kept = [
            name for name in sorted(tensors, key=natural_key) if not (self._source.tied and name == "lm_head.weight")
        ]
        _refuse_unknown_dtypes(self._source, kept)
        shards = plan_shards(
            [Planned(name, tensors[name].dtype, tensors[name].shape) for name in kept], shard_bytes=shard_bytes
        )
        order = [planned.name for shard in shards for planned in shard]
        with open_tensors(self._source) as reader:
            self._look_first(reader, order)
            write_shards(folder, shards, self._modified(reader, order))
        copy_companions(self._source.path, folder)
        result = fingerprint(folder, check_cancelled=self._check_cancelled)
        manifest = self._manifest(key, source_fingerprint, result, time.monotonic() - began)
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")

    def _look_first(self, reader: TensorReader, order: list[str]) -> None:
        """Gives each step the passes over the weights that it asks for, the steps before it applied."""
        for index, runner in enumerate(self._runners):
            addressed = [name for name in order if name in self._addressed[index]]
            for visit in runner.passes():
                for done, name in enumerate(addressed):
                    self._check_cancelled()
                    self._progress("thresholds", done, len(addressed))
                    visit(name, self._through(reader.read(name), name, before=index))

    def _modified(self, reader: TensorReader, order: list[str]) -> Iterator[tuple[str, torch.Tensor]]:
        for done, name in enumerate(order):
            self._check_cancelled()
            self._progress("surgery", done, len(order))
            tensor = reader.read(name)
            if any(name in addressed for addressed in self._addressed):
                changed = self._through(tensor, name, before=len(self._runners))
                self._changes.append(self._change(name, tensor, changed))
                tensor = changed
            yield name, tensor
        self._progress("surgery", len(order), len(order))

    def _through(self, tensor: torch.Tensor, name: str, *, before: int) -> torch.Tensor:
        for runner, addressed in zip(self._runners[:before], self._addressed, strict=False):
            if name in addressed:
                tensor = runner.apply(name, tensor)
        return tensor

    def _change(self, name: str, tensor: torch.Tensor, changed: torch.Tensor) -> TensorChange:
        steps = [index for index, addressed in enumerate(self._addressed) if name in addressed]
        bits: float = tensor.element_size() * 8
        sparsity: float | None = None
        for index in steps:
            bits = self._runners[index].bits_per_weight(tensor.shape[1]) or bits
            asked = self._runners[index].nominal_sparsity()
            sparsity = sparsity if asked is None else asked
        error, norm = _norm(changed, minus=tensor), _norm(tensor)
        if error == inf:
            raise HemostatError(
                ErrorCode.RECIPE_NOT_APPLICABLE,
                f"the weights of {name} are too large: their range is beyond float32",
                hint="check the checkpoint; trained weights are nowhere near 1e38",
                pointer=f"{POINTER}/{steps[0]}",
            )
        self._squared_error += error**2
        self._squared_norm += norm**2
        return TensorChange(
            name=name,
            shape=tuple(tensor.shape),
            dtype=self._source.tensors[name].dtype,
            steps=tuple(steps),
            bits_per_weight=bits,
            nominal_bytes=ceil(bits * tensor.numel() / 8),
            nominal_sparsity=sparsity,
            zeros=int((changed == 0).sum()),
            reconstruction_error=error / norm if norm else 0.0,
        )

    def _manifest(self, key: str, source_fingerprint: str, result: str, seconds: float) -> Manifest:
        changes = self._changes
        elements = sum(change.elements for change in changes)
        embedding = any("embed_tokens" in weight.kinds for chosen in self._addressed for weight in chosen.values())
        head = any("lm_head" in weight.kinds for chosen in self._addressed for weight in chosen.values())
        bits, size = _model_storage(self._source, changes)
        return Manifest(
            key=key,
            source_fingerprint=source_fingerprint,
            fingerprint=result,
            recipe=tuple(json.loads(canonical_json(self._recipe))),
            recipe_fingerprint=recipe_fingerprint(self._recipe),
            tensors=tuple(sorted(changes, key=lambda change: natural_key(change.name))),
            bits_per_weight=sum(change.bits_per_weight * change.elements for change in changes) / elements,
            sparsity=sum(change.zeros for change in changes) / elements,
            reconstruction_error=sqrt(self._squared_error / self._squared_norm) if self._squared_norm else 0.0,
            model_bits_per_weight=bits,
            model_nominal_bytes=size,
            embedding_changed=embedding,
            head_changed=head,
            seconds=round(seconds, 3),
        )


def _untouched(source: CheckpointInfo, source_fingerprint: str) -> Manifest:
    bits, size = _model_storage(source, [])
    return Manifest(
        key="",
        source_fingerprint=source_fingerprint,
        fingerprint=source_fingerprint,
        recipe=(),
        recipe_fingerprint=None,
        tensors=(),
        model_bits_per_weight=bits,
        model_nominal_bytes=size,
    )


def _model_storage(source: CheckpointInfo, changes: Sequence[TensorChange]) -> tuple[float, int]:
    """(bits per weight, bytes) of the whole model, changed tensors counted as packed and the others as they are."""
    changed = {change.name: change.nominal_bytes for change in changes}
    size = sum(changed.get(name, tensor.bytes) for name, tensor in source.tensors.items())
    return 8 * size / source.parameters, size


def _refuse_unknown_dtypes(source: CheckpointInfo, names: list[str]) -> None:
    for name in names:
        if source.tensors[name].dtype not in DTYPES:
            raise HemostatError(
                ErrorCode.CHECKPOINT_UNSUPPORTED,
                f"tensor {name} has the dtype {source.tensors[name].dtype}, which cannot be copied",
                hint="convert the checkpoint to bf16",
            )


def _norm(tensor_OI: torch.Tensor, *, minus: torch.Tensor | None = None) -> float:
    """Frobenius norm in float64, a block of rows at a time; infinite where a value is NaN."""
    squares = 0.0
    rows = max(1, _BLOCK // max(1, tensor_OI.shape[1]))
    for start in range(0, tensor_OI.shape[0], rows):
        block = tensor_OI[start : start + rows].to(torch.float64)
        if minus is not None:
            block -= minus[start : start + rows]
        squares += float(block.square_().sum())
    return inf if isnan(squares) else sqrt(squares)
