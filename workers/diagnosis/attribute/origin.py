"""What a layer that the candidate has more is made of: told by its weights and by what it adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from workers.diagnosis.attribute.borders import Borders
from workers.diagnosis.attribute.matching import Gap
from workers.surgery.blockwise.skeleton import Skeleton

Kind = Literal["dropped", "duplicate", "identity", "inserted"]
# ‖W − W'‖ / ‖W'‖ below which a layer is called a copy; two independent matrices of one size are at √2, and rounding to
# three bits stays below a quarter.
COPY = 0.5


@dataclass(frozen=True)
class Origin:
    """A layer without a partner: `layer` of the reference (dropped) or of the candidate (the other kinds). `of`: the
    reference's layer that it is a copy of, and `distance` ‖W − W'‖ / ‖W'‖ from it; None where no layer has its shape.
    `added`: root mean square of what it adds over that of what enters it; exactly 0 for an identity."""

    kind: Kind
    layer: int
    of: int | None
    distance: float | None
    added: float


def origins(reference: Borders, candidate: Borders, gap: Gap) -> tuple[Origin, ...]:
    """Of every layer of a gap, the dropped ones first."""
    dropped = [Origin("dropped", layer, None, None, added(reference, layer)) for layer in gap.reference]
    return (*dropped, *(_of(reference, candidate, layer) for layer in gap.candidate))


def _of(reference: Borders, candidate: Borders, layer: int) -> Origin:
    size = added(candidate, layer)
    nearest, distance = _nearest(reference.runner.skeleton, candidate.runner.skeleton, layer)
    copied = distance is not None and distance < COPY
    kind: Kind = "identity" if size == 0 else "duplicate" if copied else "inserted"
    return Origin(kind, layer, nearest if copied else None, distance, size)


def _nearest(reference: Skeleton, candidate: Skeleton, layer: int) -> tuple[int | None, float | None]:
    """The reference's layer whose weights are nearest, by the inner projections (an identity's outer ones are 0)."""
    matrices = _matrices(candidate, layer)
    found: list[tuple[float, int]] = []
    for other in range(len(reference.layers)):
        theirs = _matrices(reference, other)
        if theirs.keys() != matrices.keys() or any(theirs[name].shape != matrices[name].shape for name in matrices):
            continue
        off = sum(float((matrices[name] - theirs[name]).square().sum()) for name in matrices)
        size = sum(float(theirs[name].square().sum()) for name in matrices)
        if size > 0:
            found.append(((off / size) ** 0.5, other))
    return (None, None) if not found else (min(found)[1], min(found)[0])


def _matrices(skeleton: Skeleton, layer: int) -> dict[str, torch.Tensor]:
    """The first projection of attention: one matrix tells layers apart."""
    prefix = f"model.layers.{layer}.self_attn."
    names = [name for name in ("q_proj.weight", "qkv_proj.weight") if prefix + name in skeleton.info.tensors]
    return {name: skeleton.read(prefix + name).to(torch.float32) for name in names}


def added(borders: Borders, layer: int) -> float:
    """RMS of what a layer adds over that of what enters it, over all tokens but each window's first."""
    top = bottom = 0.0
    for start, end in borders.runner.batches():
        entering_NLD = borders.read(layer, start, end)[:, 1:].to(torch.float64)
        leaving_NLD = borders.read(layer + 1, start, end)[:, 1:].to(torch.float64)
        top += float((leaving_NLD - entering_NLD).square().sum())
        bottom += float(entering_NLD.square().sum())
    return (top / bottom) ** 0.5 if bottom else 0.0
