"""Round to nearest: each group of weights on an even grid of its own, written back in full precision.

Shapes: O output dimension, I input dimension, G groups of a row.

Asymmetric, b bits, per group: scale = (max − min) / (2^b − 1), zero = round(−min / scale). The code is round(w / scale)
+ zero, cut to 0 … 2^b − 1. The weight becomes (code − zero) · scale. Both min and max include 0. So the zero point is a
code of b bits, and a weight of exactly 0 (a pruned one) stays 0. Symmetric: scale = max|w| / (2^(b−1) − 1), no zero
point. Rounding is to even on halves. All of it in float32; scale and zero point are not rounded to a storage format.

Both scales are those of Ma et al., *Model Hemorrhage* (arXiv 2503.23924), in its figure of symmetric and asymmetric
quantization. That the zero point is a code, so that 0 stays 0, is from Jacob et al. (arXiv 1712.05877). Ours: groups of
any size that divides a row, and codes that are counted from 0, not from −2^(b−1), which is the same grid.
"""

from dataclasses import replace

import torch

from app.recipes.quantize import QuantizeRtn
from workers.surgery.packing import Packing
from workers.surgery.quantize_grid import Quantized, fit, scale_dtype, stored
from workers.surgery.quantize_output import Output
from workers.surgery.step_run import StepRun


def quantize(weight_OI: torch.Tensor, *, bits: int, group_size: int | None, symmetric: bool) -> torch.Tensor:
    """The dequantized weight, in the dtype of `weight_OI`. `group_size` divides I; None: one group a row.

    Values must be finite. A group of zeros stays zeros.
    """
    outputs, inputs = weight_OI.shape
    grouped_OGS = weight_OI.to(torch.float32).reshape(outputs, -1, group_size or inputs)
    if symmetric:
        top = 2 ** (bits - 1) - 1
        scale_OG1 = _usable(grouped_OGS.abs().amax(dim=-1, keepdim=True) / top)
        dequantized_OGS = (grouped_OGS / scale_OG1).round_().clamp_(-top, top).mul_(scale_OG1)
    else:
        top = 2**bits - 1
        least_OG1 = grouped_OGS.amin(dim=-1, keepdim=True).clamp_(max=0)
        most_OG1 = grouped_OGS.amax(dim=-1, keepdim=True).clamp_(min=0)
        scale_OG1 = _usable((most_OG1 - least_OG1) / top)
        zero_OG1 = (-least_OG1 / scale_OG1).round_().clamp_(0, top)
        codes_OGS = (grouped_OGS / scale_OG1).round_().add_(zero_OG1).clamp_(0, top)
        dequantized_OGS = codes_OGS.sub_(zero_OG1).mul_(scale_OG1)
    return dequantized_OGS.reshape(outputs, inputs).to(weight_OI.dtype)


def _usable(scale: torch.Tensor) -> torch.Tensor:
    """A scale of 0 belongs to a group of zeros (or of numbers too small to tell apart): any other gives zeros."""
    return torch.where(scale == 0, 1.0, scale)


class RtnPacked:
    """`quantize.rtn`, packed: the codes of the simulated form, times scales that are rounded to their 16-bit format. So
    what is measured simulated is what is served, and a repair of the one fits the other."""

    version = 2

    def __init__(self, step: QuantizeRtn) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Weight by weight."""
        step = self._step
        output = Output(context, Packing(step.bits, step.group_size, step.symmetric))
        for done, weight in enumerate(context.weights):
            context.check_cancelled()
            context.progress("surgery", done, len(context.weights))
            weight_OI = context.read(weight.name)
            output.put(weight.name, _coded(weight_OI, step, scale_dtype(weight.dtype)))
        output.finish()


def _coded(weight_OI: torch.Tensor, step: QuantizeRtn, dtype: torch.dtype) -> Quantized:
    """Codes by exact scales. Those that `dtype` would hold as 0 are 1 for the codes, too."""
    grid = fit(weight_OI, bits=step.bits, group_size=step.group_size, symmetric=step.symmetric, dtype=torch.float32)
    grid = replace(grid, scale_OG=torch.where(grid.scale_OG.to(dtype) == 0, 1.0, grid.scale_OG))
    return Quantized(replace(grid, scale_OG=stored(grid.scale_OG, dtype)), grid.encode(weight_OI))
