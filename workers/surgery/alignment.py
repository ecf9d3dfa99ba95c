"""Which layer of the reference each layer of the modified model is, where layers were dropped or duplicated.

The recipe's own record shows it, where it begins at a model as deep as the reference: what each tensor was before all
steps. Otherwise layers are taken to have kept their order. Of all assignments that keep it, the one with the
nearest norms, biases (which most methods leave alone) and weights is taken. Ours; the search is the usual one for
sequences of different lengths.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch

from app.models.checkpoint import CheckpointInfo
from app.models.layer_names import in_layer
from workers.surgery.callbacks import CheckCancelled, never_cancelled
from workers.surgery.channels import Channels
from workers.surgery.step_run import StepRun

Read = Callable[[str], torch.Tensor]
# Rows and columns of a matrix that are compared: enough to tell layers apart.
_SAMPLE = 64


def align(context: StepRun, read_reference: Read) -> list[int]:
    """The reference's layer for each layer of a step's source: never falling, since hidden states only go forward.

    As the recipe shows it (`layer_origins`), except where it repeats a run of several layers and so falls back. Then,
    and where it shows nothing, as `nearest` finds it.
    """
    origins = layer_origins(context)
    if origins is not None and all(first <= second for first, second in pairwise(origins)):
        return origins
    rising = None if origins is None else len(set(origins)) == len(origins)
    frame = Channels.of(context.reference)
    return nearest(
        context.source,
        lambda name: context.channels.meaning(name, context.read(name)),
        context.reference,
        lambda name: frame.meaning(name, read_reference(name)),
        strict=rising,
        check_cancelled=context.check_cancelled,
    )


def layer_origins(context: StepRun) -> list[int] | None:
    """The reference's layer that each layer of a step's source was made of, whatever their order; one that was put
    between two counts as the one before it. None if the recipe began at a model of another depth than the
    reference's, so that its layers have other numbers."""
    if context.base.layers != context.reference.layers:
        return None
    found: list[int | None] = [None] * context.source.layers
    for name in context.source.tensors:
        place, origin = in_layer(name), context.came_from(name)
        before = None if origin is None else in_layer(origin)
        if place is not None and before is not None:
            found[place.layer] = before.layer
    return _filled(found)


def _filled(layers: Sequence[int | None]) -> list[int]:
    filled: list[int] = []
    for layer in layers:
        filled.append(layer if layer is not None else filled[-1] if filled else 0)
    return filled


def nearest(
    wounded: CheckpointInfo,
    read: Read,
    reference: CheckpointInfo,
    read_reference: Read,
    *,
    strict: bool | None = None,
    check_cancelled: CheckCancelled = never_cancelled,
) -> list[int]:
    """The reference's layer for each of the modified model's, by their tensors alone: never falling, and with `strict`
    rising (default: where the modified model has fewer)."""
    if strict is None:
        strict = wounded.layers < reference.layers
    theirs = [_signature(reference, read_reference, index) for index in range(reference.layers)]
    distance = torch.empty(wounded.layers, reference.layers, dtype=torch.float64)
    for index in range(wounded.layers):
        check_cancelled()
        ours = _signature(wounded, read, index)
        for other, signature in enumerate(theirs):
            distance[index, other] = _apart(ours, signature)
    return monotone(distance, strict=strict)


def monotone(distance_AB: torch.Tensor, *, strict: bool) -> list[int]:
    """The column of each row that makes the sum least while columns rise (`strict`) or never fall.

    ValueError if rows are more than columns and columns must rise.
    """
    rows, columns = distance_AB.shape
    if strict and rows > columns:
        raise ValueError(f"{rows} rows cannot rise over {columns} columns")
    infinity = float("inf")
    best = distance_AB[0].tolist()
    came: list[list[int]] = []
    for row in range(1, rows):
        least, where = infinity, -1
        now: list[float] = []
        back: list[int] = []
        for column in range(columns):
            if strict:  # from a column before this one
                now.append(least + float(distance_AB[row, column]))
                back.append(where)
            if best[column] < least:
                least, where = best[column], column
            if not strict:
                now.append(least + float(distance_AB[row, column]))
                back.append(where)
        best, came = now, [*came, back]
    column = min(range(columns), key=best.__getitem__)
    path = [column]
    for back in reversed(came):
        column = back[column]
        path.append(column)
    return path[::-1]


def _signature(info: CheckpointInfo, read: Read, layer: int) -> dict[str, torch.Tensor]:
    prefix = f"model.layers.{layer}."
    found = {}
    for name, tensor in info.tensors.items():
        if name.startswith(prefix):
            value = read(name).to(torch.float64)
            found[name.removeprefix(prefix)] = value if len(tensor.shape) == 1 else value[:_SAMPLE, :_SAMPLE]
    return found


def _apart(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """Mean relative squared difference of the tensors that both have in one shape."""
    shared = [name for name in first if name in second and first[name].shape == second[name].shape]
    apart = [
        float((first[name] - second[name]).square().sum() / second[name].square().sum().clamp_min(1e-12))
        for name in shared
    ]
    return sum(apart) / len(apart) if apart else 1.0
