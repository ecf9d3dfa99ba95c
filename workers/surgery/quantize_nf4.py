"""NF4: 16 values that a normal distribution fills evenly, scaled by the greatest |w| of each group.

Dettmers et al., *QLoRA* (arXiv 2305.14314), section 3. Quantiles of the normal distribution, eight on the positive side
and eight on the negative with a 0 in common, scaled to −1 … 1. Between which tails the quantiles are spread (from 1 −
0.9677083) is bitsandbytes' choice. Scales are 16-bit (QLoRA's are 32-bit, quantized once more). A weight of 0 stays 0.
"""

from collections.abc import Iterator
from functools import cache

import torch

from app.recipes.quantize import QuantizeNf4
from workers.surgery.quantize_grid import stored
from workers.surgery.steps import Visit

TAIL = 0.9677083


@cache
def levels() -> torch.Tensor:
    """The 16 values, ascending, float32, on the host."""
    with torch.device("cpu"):
        positive = torch.special.ndtri(torch.linspace(TAIL, 0.5, 9, dtype=torch.float64)[:-1])
        negative = -torch.special.ndtri(torch.linspace(TAIL, 0.5, 8, dtype=torch.float64)[:-1])
        found = torch.cat([positive, torch.zeros(1, dtype=torch.float64), negative]).sort().values
    return (found / found.max()).to(torch.float32)


def quantize(weight_OI: torch.Tensor, *, group_size: int | None) -> torch.Tensor:
    """The dequantized weight, in the dtype of `weight_OI`. `group_size` divides I; None: one group a row."""
    dtype = torch.float16 if weight_OI.dtype == torch.float16 else torch.bfloat16
    grouped_OGS = weight_OI.to(torch.float32).reshape(len(weight_OI), -1, group_size or weight_OI.shape[1])
    scale_OG1 = stored(grouped_OGS.abs().amax(-1, keepdim=True), dtype)
    values = levels().to(weight_OI.device)
    code_OGS = torch.bucketize(grouped_OGS / scale_OG1, (values[1:] + values[:-1]) / 2)
    return (values[code_OGS] * scale_OG1).reshape(weight_OI.shape).to(weight_OI.dtype)


class Nf4Runner:
    """`quantize.nf4`."""

    def __init__(self, step: QuantizeNf4) -> None:
        self._step = step

    def passes(self) -> Iterator[Visit]:
        """None needed."""
        return iter(())

    def apply(self, name: str, weight_OI: torch.Tensor) -> torch.Tensor:
        """Quantized and dequantized."""
        return quantize(weight_OI, group_size=self._step.group_size)

    def bits_per_weight(self, inputs: int) -> float | None:
        """Code, and share of the group's 16-bit scale."""
        return 4 + 16 / (self._step.group_size or inputs)

    def nominal_sparsity(self) -> float | None:
        """It asks for none."""
        return None
