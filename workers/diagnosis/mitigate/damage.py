"""Where the damage sits: a few neighbouring layers at a time are made the reference's again, and what that saves is
measured.

Layers are taken together because each part costs a pass, and whole, norms and biases with their matrices: a step may
have moved a factor from one into the other. Within a part the damage is spread by the squared error of the weights.
Where a part cannot be restored (another shape, packed weights) the weights' errors alone tell, and where these are not
known nothing does. Restoring one part says what it costs while all others are damaged; the parts need not add up to the
whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import torch

from app.contracts.report import Mean
from app.kinds.mitigate.report import Damage, Part
from app.models.checkpoint import CheckpointInfo, inspect
from app.models.layer_names import in_layer
from app.models.modules import natural_key, weights_of
from workers.process.handler import JobContext
from workers.surgery.files import copy_companions
from workers.surgery.manifest import Manifest
from workers.surgery.reading import open_tensors
from workers.surgery.safetensors_writer import Planned, plan_shards, write_shards

MOST_PARTS: Final = 6


@dataclass(frozen=True)
class Group:
    """A part before it is measured: neighbouring layers, and its tensors; of what is outside, those that differ."""

    layers: tuple[int, ...]
    tensors: tuple[str, ...]
    error: float | None

    @property
    def name(self) -> str:
        """`layers 0–4`, or what is outside."""
        if not self.layers:
            return "outside the layers"
        first, last = self.layers[0], self.layers[-1]
        return f"layer {first}" if first == last else f"layers {first}–{last}"


def restorable(candidate: CheckpointInfo, reference: CheckpointInfo) -> str:
    """Why parts of the candidate cannot be made the reference's again; empty if they can."""
    if candidate.quantization is not None or reference.quantization is not None:
        return "the candidate's weights are packed, so no part of it can be put back"
    shapes = [{name: tensor.shape for name, tensor in info.tensors.items()} for info in (candidate, reference)]
    if shapes[0] != shapes[1]:
        return "the candidate has other shapes than the reference, so no part of it can be put back"
    return ""


def groups_of(candidate: CheckpointInfo, reference: CheckpointInfo, manifest: Manifest) -> list[Group]:
    """The parts whose weights were changed: at most `MOST_PARTS` runs of layers, and what is outside them."""
    layer_of = {weight.name: weight.layer for weight in weights_of(candidate)}
    changes = {change.name for change in manifest.tensors}
    # Without a manifest anything may have been changed.
    names = list(candidate.tensors)
    if changes:
        changes |= _other_vectors(candidate, reference)
        names = [name for name in candidate.tensors if name in changes]
    count = min(MOST_PARTS, candidate.layers)
    bounds = [round(index * candidate.layers / count) for index in range(count + 1)]
    found = []
    for first, last in pairwise(bounds):
        layers = tuple(range(first, last))
        if any(_layer(name, layer_of) in layers for name in names):
            inside = tuple(sorted((n for n in candidate.tensors if _layer(n, layer_of) in layers), key=natural_key))
            found.append(Group(layers, inside, _error(inside, manifest)))
    outside = tuple(sorted((n for n in names if _layer(n, layer_of) is None), key=natural_key))
    if outside and (changes or count > 1):
        found.append(Group((), outside, _error(outside, manifest)))
    return found


def layer_shares(parts: tuple[Part, ...], candidate: CheckpointInfo, manifest: Manifest) -> dict[int, float]:
    """The damage by layer, 1 together: each part's share, spread within it by the squared error of the weights."""
    layer_of = {weight.name: weight.layer for weight in weights_of(candidate)}
    squares: dict[int, float] = {}
    for change in manifest.tensors:
        layer = layer_of.get(change.name)
        if layer is not None and change.reconstruction_error is not None and change.original_norm is not None:
            squares[layer] = squares.get(layer, 0.0) + (change.reconstruction_error * change.original_norm) ** 2
    shares: dict[int, float] = {}
    for part in parts:
        if not part.layers or not part.share or part.share <= 0:
            continue
        total = sum(squares.get(layer, 0.0) for layer in part.layers)
        for layer in part.layers:
            own = squares.get(layer, 0.0) / total if total else 1 / len(part.layers)
            shares[layer] = part.share * own
    whole = sum(shares.values())
    return {layer: share / whole for layer, share in sorted(shares.items())} if whole else {}


def damage_of(kl: Mean, groups: list[Group], saved: Mapping[str, Mean], note: str) -> Damage:
    """The damage, from what restoring each group saved, by its name; `saved` is empty if none was restored."""
    gains = {name: max(0.0, mean.mean or 0.0) for name, mean in saved.items()}
    total = sum(gains.values())
    squared = {group.name: (group.error or 0.0) ** 2 for group in groups}
    weight = sum(squared.values())
    parts = []
    for group in groups:
        share = None
        if saved:
            share = gains.get(group.name, 0.0) / total if total else None
        elif weight:
            share = squared[group.name] / weight
        parts.append(
            Part(
                name=group.name,
                layers=group.layers,
                saved=saved.get(group.name),
                reconstruction_error=group.error,
                share=share,
            )
        )
    how = "restored" if saved else "reconstruction_error" if weight else "unknown"
    return Damage(
        kl=kl,
        parts=tuple(sorted(parts, key=lambda part: -(part.share or 0.0))),
        how=how,  # type: ignore[arg-type]
        note=note,
    )


@contextmanager
def restored(
    candidate: CheckpointInfo, reference: CheckpointInfo, tensors: Collection[str], folder: Path, context: JobContext
) -> Iterator[CheckpointInfo]:
    """A checkpoint in `folder` that is the candidate but for these tensors of the reference; gone afterwards."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        _mix(candidate, reference, frozenset(tensors), folder, context)
        yield inspect(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _mix(
    candidate: CheckpointInfo,
    reference: CheckpointInfo,
    names: frozenset[str],
    folder: Path,
    context: JobContext,
) -> None:
    copy_companions(candidate.path, folder)
    planned = [
        Planned(name, tensor.dtype, tensor.shape)
        for name, tensor in sorted(candidate.tensors.items(), key=lambda item: natural_key(item[0]))
    ]
    shards = plan_shards(planned)
    with open_tensors(candidate, "cpu") as own, open_tensors(reference, "cpu") as other:

        def tensors() -> Iterator[tuple[str, object]]:
            for shard in shards:
                for one in shard:
                    context.check_cancelled()
                    tensor = (other if one.name in names else own).read(one.name)
                    yield one.name, tensor.to(own.read(one.name).dtype)

        write_shards(folder, shards, tensors())  # type: ignore[arg-type]


def _other_vectors(candidate: CheckpointInfo, reference: CheckpointInfo) -> set[str]:
    """Norms and biases that are not the reference's: a manifest lists matrices alone."""
    if restorable(candidate, reference):
        return set()
    vectors = [name for name, tensor in candidate.tensors.items() if len(tensor.shape) == 1]
    with open_tensors(candidate, "cpu") as own, open_tensors(reference, "cpu") as other:
        return {name for name in vectors if not torch.equal(own.read(name).float(), other.read(name).float())}


def _layer(name: str, layer_of: Mapping[str, int | None]) -> int | None:
    """The layer of any tensor, norms and biases included."""
    if name in layer_of:
        return layer_of[name]
    place = in_layer(name)
    return None if place is None else place.layer


def _error(names: tuple[str, ...], manifest: Manifest) -> float | None:
    wanted = frozenset(names)
    known = [
        (change.reconstruction_error, change.original_norm)
        for change in manifest.tensors
        if change.name in wanted and change.reconstruction_error is not None and change.original_norm is not None
    ]
    norm = sum(size**2 for _, size in known)
    return (sum((error * size) ** 2 for error, size in known) / norm) ** 0.5 if norm else None
