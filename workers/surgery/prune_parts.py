"""Heads and channels: what they have in common. Of every layer the same number of parts goes, those that add least to
the block's output on the calibration text.

Shapes: O output dimension of the layer behind the parts (`o_proj`, `down_proj`), I its input dimension, P parts.
"""

from collections.abc import Mapping
from math import floor

import torch

from workers.surgery.step_run import StepRun

Rows = Mapping[str, torch.Tensor]


def energy_of_parts(weight_OI: torch.Tensor, moment_II: torch.Tensor, parts: int) -> torch.Tensor:
    """(P) E‖Σ_i∈p W_oi x_i‖² of each of `parts` equal runs of inputs: the mean square that it adds to the output."""
    size = weight_OI.shape[1] // parts
    found = []
    for start in range(0, parts * size, size):
        piece_OS = weight_OI[:, start : start + size]
        moment_SS = moment_II[start : start + size, start : start + size]
        found.append(((piece_OS @ moment_SS) * piece_OS).sum())
    return torch.stack(found)


def kept_parts(energy_P: torch.Tensor, gone: int) -> torch.Tensor:
    """Indices, ascending, of the parts that stay when the `gone` of least energy go; of equal ones the earlier goes."""
    return energy_P.argsort(stable=True)[gone:].sort().values


def spread(parts: torch.Tensor, size: int) -> torch.Tensor:
    """Indices of all elements of parts that have `size` elements each."""
    return (parts[:, None] * size + torch.arange(size)).flatten()


def take_rows(context: StepRun, module: str, rows: torch.Tensor) -> None:
    """The result's `module` has those outputs alone; its bias too, where it has one."""
    for name in (f"{module}.weight", f"{module}.bias"):
        if name in context.source.tensors:
            context.channels.take(name, outputs=rows)
            context.put(name, context.read(name)[rows])


def take_columns(context: StepRun, module: str, columns: torch.Tensor) -> None:
    """The result's `module` has those inputs alone."""
    name = f"{module}.weight"
    weight_OI = context.read(name)
    context.channels.take(name, inputs=columns)
    context.put(name, weight_OI[:, columns], bits=bits_of_fewer(context.bits(name), weight_OI.shape[1], len(columns)))


def bits_of_fewer(bits: float | None, inputs: int, kept: int) -> float | None:
    """Bits per weight of a matrix on a grid that has `kept` of its `inputs`: groups lost weights, and each keeps its
    scale and zero point. What those take of a weight is taken to be less than a bit, as it is from groups of 24 on."""
    if bits is None:
        return None
    code = floor(bits)
    return code + (bits - code) * inputs / kept


def without_inputs(weight: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """The weight with all columns but `kept` at 0: what goes on in a block whose modules keep their size."""
    emptied = torch.zeros_like(weight)
    emptied[:, kept] = weight[:, kept]
    return emptied
