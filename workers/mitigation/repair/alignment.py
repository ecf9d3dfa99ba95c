"""Which layer of the reference each layer of the wounded model is, where layers were dropped or duplicated.

No record is needed: layers keep their order, so of all assignments that keep it the one is taken whose norms and biases
(which most methods leave alone) and weights are nearest. Ours; the search is the usual one for sequences of different
lengths.
"""

from collections.abc import Callable

import torch

from app.models.checkpoint import CheckpointInfo
from workers.surgery.callbacks import CheckCancelled, never_cancelled

Read = Callable[[str], torch.Tensor]
# Rows and columns of a matrix that are compared: enough to tell layers apart.
_SAMPLE = 64


def align(
    wounded: CheckpointInfo,
    read: Read,
    reference: CheckpointInfo,
    read_reference: Read,
    *,
    check_cancelled: CheckCancelled = never_cancelled,
) -> list[int]:
    """The reference's layer for each of the wounded model's: rising where layers were dropped, never falling where
    they were duplicated; the identity where there are as many."""
    if wounded.layers == reference.layers:
        return list(range(wounded.layers))
    theirs = [_signature(reference, read_reference, index) for index in range(reference.layers)]
    distance = torch.empty(wounded.layers, reference.layers, dtype=torch.float64)
    for index in range(wounded.layers):
        check_cancelled()
        ours = _signature(wounded, read, index)
        for other, signature in enumerate(theirs):
            distance[index, other] = _apart(ours, signature)
    return monotone(distance, strict=wounded.layers < reference.layers)


def monotone(distance_AB: torch.Tensor, *, strict: bool) -> list[int]:
    """The column of each row that makes the sum least while columns rise (`strict`) or never fall.

    ValueError where rows are more than columns and columns must rise.
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
