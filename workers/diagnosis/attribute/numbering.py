"""Whether layers of the same number are counterparts: told by the recipe, and of anybody's weights by the weights.

A candidate of the reference's depth may have lost one layer and got another elsewhere. Every layer between the two is
then a copy of its neighbour. Its cost in the place of the layer of its number would be no damage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from app.models.checkpoint import CheckpointInfo
from app.models.layer_names import in_layer
from app.models.steps import renumbering
from app.recipes.recipe import Recipe
from workers.surgery.blockwise.skeleton import Read
from workers.surgery.callbacks import CheckCancelled, never_cancelled

# Rows of a layer's first projection that it is known by.
ROWS = 32
# ‖W − W'‖ / ‖W'‖ below which a layer is called a copy. Two independent matrices of one size are at √2, and rounding to
# three bits stays below a quarter.
COPY = 0.5


def renumbered_by(origin: CheckpointInfo, recipe: Recipe) -> str:
    """The steps of a recipe after which layer n is another one than before, in a clause; empty if there is none."""
    steps = list(dict.fromkeys(recipe[index].type for index in renumbering(origin, recipe)))
    if not steps:
        return ""
    verb = "numbers" if len(steps) == 1 else "number"
    return f"{' and '.join(steps)} {verb} the layers again, so that parts of the same number are no counterparts"


def made_of(
    origin: CheckpointInfo, tensors: Iterable[str], origins: Mapping[str, str | None]
) -> tuple[int | None, ...] | None:
    """Of each layer of the candidate the one of `origin` that it was made of, None for one of which nothing was there.

    `tensors` are the candidate's, and `origins` says what those were called before the recipe that had another name
    (None: not there), as a manifest does. None altogether where a layer's tensors are of several, or no name shows.
    """
    paths = {place.path for name in origin.tensors if (place := in_layer(name)) is not None}
    found: dict[int, set[int]] = {}
    for name in tensors:
        place = in_layer(name)
        if place is None or place.path not in paths:
            continue  # packed codes and scales: the recipe's own, under names that no layer had before
        before = origins.get(name, name)
        then = None if before is None else in_layer(before)
        found.setdefault(place.layer, set()).update(() if then is None else (then.layer,))
    layers = range(len(found))
    if not found or any(layer not in found or len(found[layer]) > 1 for layer in layers):
        return None
    return tuple(next(iter(found[layer]), None) for layer in layers)


def moved(
    reference: CheckpointInfo,
    candidate: CheckpointInfo,
    reads: tuple[Read, Read],
    check_cancelled: CheckCancelled = never_cancelled,
) -> str:
    """The first layer of the candidate that is a copy of another layer of the reference than the one of its number, in
    a clause; empty if there is none. Both plain; layers of other shapes are not compared."""
    ours, theirs = (
        [_known_by(info, read, layer, check_cancelled) for layer in range(info.layers)]
        for info, read in zip((reference, candidate), reads, strict=True)
    )
    for layer, own in enumerate(theirs):
        if own is None:
            continue
        off = {
            other: float((own - known).norm() / known.norm().clamp_min(1e-30))
            for other, known in enumerate(ours)
            if known is not None and known.shape == own.shape
        }
        nearest = min(off, key=off.__getitem__, default=layer)
        if off.get(layer, COPY) >= COPY > off.get(nearest, COPY):
            return (
                f"layer {layer} of the candidate is a copy of the reference's layer {nearest}, so that parts of the "
                "same number are no counterparts"
            )
    return ""


def _known_by(info: CheckpointInfo, read: Read, layer: int, check_cancelled: CheckCancelled) -> torch.Tensor | None:
    """(rows, D) float32, evenly from the first projection of attention; None if a layer has none."""
    check_cancelled()
    for name in ("q_proj", "qkv_proj"):
        tensor = f"model.layers.{layer}.self_attn.{name}.weight"
        if tensor in info.tensors:
            weight = read(tensor)
            return weight[:: max(1, len(weight) // ROWS)].to(torch.float32)
    return None
