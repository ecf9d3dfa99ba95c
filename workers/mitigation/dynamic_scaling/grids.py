"""How modules are stored, and the grids that are tried for a group of weights.

Shapes: O output dimension, I input dimension, S weights of a group, K candidate grids.

The grids are those of `workers.surgery.quantize_grid`. Within this package codes and zero points count from 0 for
symmetric grids too, whose zero point is 2^(b−1) throughout; `rounding.Rounded.quantized` translates. The first
candidate is the range of the weights, which is round to nearest; the others shrink it, as OmniQuant (arXiv 2308.13137)
and AWQ (arXiv 2306.00978) clip.
"""

from dataclasses import dataclass

import torch

from workers.surgery.quantize_grid import bits_per_weight, stored

# Shares of a group's range that are tried.
SHRINK = (1.0, 0.94, 0.88, 0.82, 0.76, 0.68)


@dataclass(frozen=True)
class Scheme:
    """How a module's weights are stored. `group_size` None: one group per row. `dtype`: that of the scales."""

    bits: int
    group_size: int | None
    symmetric: bool
    dtype: torch.dtype = torch.bfloat16

    @property
    def top(self) -> int:
        """The greatest code."""
        return int(2**self.bits - 1)

    @property
    def half(self) -> int:
        """The code of 0 on a symmetric grid."""
        return int(2 ** (self.bits - 1))

    def group(self, inputs: int) -> int:
        """Weights of a group."""
        return self.group_size or inputs

    def bits_per_weight(self, inputs: int) -> float:
        """Codes; for each group of a row a 16-bit scale and (asymmetric) a zero point of `bits` bits."""
        return bits_per_weight(inputs, bits=self.bits, group_size=self.group_size, symmetric=self.symmetric)

    def storage(self, outputs: int, inputs: int) -> float:
        """Bits of a whole weight."""
        return outputs * inputs * self.bits_per_weight(inputs)


def candidates(weight_OS: torch.Tensor, scheme: Scheme) -> tuple[torch.Tensor, torch.Tensor]:
    """(scale, zero), each (K, O), for one group of every row: the range of its weights, shrunk by `SHRINK`."""
    shrink_K1 = torch.tensor(SHRINK).unsqueeze(1)
    if scheme.symmetric:
        scale_KO = stored(shrink_K1 * weight_OS.abs().amax(1) / (scheme.half - 1), scheme.dtype)
        return scale_KO, torch.full_like(scale_KO, scheme.half)
    least_KO = shrink_K1 * weight_OS.amin(1).clamp(max=0)
    most_KO = shrink_K1 * weight_OS.amax(1).clamp(min=0)
    scale_KO = stored((most_KO - least_KO) / scheme.top, scheme.dtype)
    return scale_KO, (-least_KO / scale_KO).round_().clamp_(0, scheme.top)
