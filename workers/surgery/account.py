"""What a recipe's stages did to the weights, added up into the manifest's numbers."""

from collections.abc import Iterable
from math import ceil, inf, isnan, prod, sqrt

import torch

from app.models.checkpoint import CheckpointInfo
from app.models.modules import natural_key
from workers.surgery.manifest import TensorChange

_BLOCK = 1 << 22


def change_of(
    name: str,
    changed: torch.Tensor,
    *,
    dtype: str,
    steps: tuple[int, ...],
    original: torch.Tensor | None,
    meaning: torch.Tensor | None = None,
    bits: float | None = None,
    sparsity: float | None = None,
    before: TensorChange | None = None,
    in_parts: bool = False,
) -> TensorChange:
    """The account of one weight as it is now.

    `original` is the unmodified model's weight of that name and shape where there is one, `meaning` what the weight
    means beside it (default: itself), where channels were scaled. `bits` and `sparsity` are
    what the step set, else what `before` (the account after the stages before) says, else the dtype's width and none.
    What counts as its parts (`in_parts`: two factors, or an adapter beside the weight) has them no more after any other
    change, and counts in full.
    """
    width: float = changed.element_size() * 8
    if bits is None:
        bits = before.bits_per_weight if before and not before.in_parts else width
    asked = sparsity if sparsity is not None else (before.nominal_sparsity if before else None)
    error: float | None = None
    size: float | None = None
    if original is not None and original.shape == changed.shape:
        size = norm(original)
        error = norm(changed if meaning is None else meaning, minus=original) / size if size else 0.0
    return TensorChange(
        name=name,
        shape=tuple(changed.shape),
        dtype=dtype,
        steps=_since(before, steps),
        bits_per_weight=bits,
        nominal_bytes=ceil(bits * changed.numel() / 8),
        nominal_sparsity=asked,
        zeros=int((changed == 0).sum()),
        reconstruction_error=error,
        original_norm=size,
        in_parts=in_parts,
    )


def totals(changes: Iterable[TensorChange]) -> tuple[float | None, float | None, float | None]:
    """(bits per weight, sparsity, reconstruction error) over all changed weights; nulls where there is none."""
    listed = list(changes)
    elements = sum(change.elements for change in listed)
    if not elements:
        return None, None, None
    bits = sum(change.bits_per_weight * change.elements for change in listed) / elements
    sparsity = sum(change.zeros for change in listed) / elements
    known = [
        (change.reconstruction_error, change.original_norm)
        for change in listed
        if change.reconstruction_error is not None and change.original_norm is not None
    ]
    if not known:
        return bits, sparsity, None
    squared_norm = sum(size**2 for _, size in known)
    squared_error = sum((error * size) ** 2 for error, size in known)
    return bits, sparsity, sqrt(squared_error / squared_norm) if squared_norm else 0.0


def nominal_share(changes: Iterable[TensorChange]) -> float | None:
    """The share of zeros that was asked for over all changed weights, those that no step pruned counting none; null
    where none was asked for."""
    listed = list(changes)
    asked = [change.nominal_sparsity * change.elements for change in listed if change.nominal_sparsity is not None]
    return sum(asked) / sum(change.elements for change in listed) if asked else None


def model_storage(info: CheckpointInfo, changes: Iterable[TensorChange]) -> tuple[float, int]:
    """(bits per weight, bytes) of the whole model: changed weights as they would be packed, the others as they are; a
    packed checkpoint as it is."""
    if info.quantization is not None:
        size = sum(tensor.bytes for tensor in info.tensors.values())
        return 8 * size / info.parameters, size
    changed = {change.name: change.nominal_bytes for change in changes}
    size = sum(changed.get(name, tensor.bytes) for name, tensor in info.tensors.items())
    return 8 * size / info.parameters, size


def sorted_changes(changes: Iterable[TensorChange]) -> tuple[TensorChange, ...]:
    """In the model's order."""
    return tuple(sorted(changes, key=lambda change: natural_key(change.name)))


def _since(before: TensorChange | None, steps: tuple[int, ...]) -> tuple[int, ...]:
    """The steps that changed something, those of the stages before among them."""
    return tuple(sorted({*(before.steps if before else ()), *steps}))


def norm(tensor: torch.Tensor, *, minus: torch.Tensor | None = None) -> float:
    """Frobenius norm in float64, a block of rows at a time; infinite if a value is NaN."""
    flat = tensor.reshape(tensor.shape[0], -1) if tensor.ndim > 1 else tensor.reshape(1, -1)
    other = None if minus is None else minus.reshape(flat.shape)
    squares = 0.0
    rows = max(1, _BLOCK // max(1, prod(flat.shape[1:])))
    for start in range(0, flat.shape[0], rows):
        block = flat[start : start + rows].to(torch.float64)
        if other is not None:
            block = block - other[start : start + rows]
        squares += float(block.square().sum())
    return inf if isnan(squares) else sqrt(squares)
