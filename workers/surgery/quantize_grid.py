"""Even grids: a scale, and perhaps a zero point, for each group of weights of a row; codes; and the weights they mean.

Shapes: O output dimension, I input dimension, G groups of a row, S weights of a group.

A weight is (code − zero) · scale. Asymmetric, b bits: scale = (max − min) / (2^b − 1), zero = round(−min / scale).
Codes and zero are 0 … 2^b − 1, with 0 between min and max. Symmetric: scale = max|w| / (2^(b−1) − 1), no zero point,
codes −2^(b−1) … 2^(b−1) − 1 . Round to nearest does not reach the lowest. Methods that move weights after the grid is
fixed may. A scale is rounded to the 16-bit format that packed checkpoints keep it in before a code is chosen. So the
packed and the simulated form are the same codes times the same scales. (Round to nearest rounds it afterwards, and only
if it packs: `quantize_rtn`.)"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Grid:
    """`scale_OG` and `zero_OG` (None: symmetric) in float32; `group_size` None is one group a row."""

    bits: int
    group_size: int | None
    scale_OG: torch.Tensor
    zero_OG: torch.Tensor | None

    @property
    def symmetric(self) -> bool:
        """Whether it has no zero point."""
        return self.zero_OG is None

    @property
    def least(self) -> int:
        """The lowest code."""
        return -(1 << (self.bits - 1)) if self.symmetric else 0

    @property
    def most(self) -> int:
        """The highest code."""
        return (1 << (self.bits - (1 if self.symmetric else 0))) - 1

    def encode(self, weight_OI: torch.Tensor) -> torch.Tensor:
        """The nearest code of each weight (float32, whole numbers); halves to even."""
        codes_OGS = (self._grouped(weight_OI.to(torch.float32)) / self.scale_OG[..., None]).round_()
        if self.zero_OG is not None:
            codes_OGS += self.zero_OG[..., None]
        return codes_OGS.clamp_(self.least, self.most).reshape(weight_OI.shape)

    def decode(self, codes_OI: torch.Tensor) -> torch.Tensor:
        """The weights that codes mean, float32."""
        codes_OGS = self._grouped(codes_OI.to(torch.float32))
        if self.zero_OG is not None:
            codes_OGS = codes_OGS - self.zero_OG[..., None]
        return (codes_OGS * self.scale_OG[..., None]).reshape(codes_OI.shape)

    def nearest(self, weight_OI: torch.Tensor) -> torch.Tensor:
        """Each weight's nearest value on the grid, float32."""
        return self.decode(self.encode(weight_OI))

    def _grouped(self, weight_OI: torch.Tensor) -> torch.Tensor:
        return weight_OI.reshape(len(weight_OI), -1, self.group_size or weight_OI.shape[1])


@dataclass(frozen=True)
class Quantized:
    """Weights on a grid: `codes_OI` are whole numbers (any dtype)."""

    grid: Grid
    codes_OI: torch.Tensor

    def weight(self) -> torch.Tensor:
        """The weights that the codes mean, (O, I) float32."""
        return self.grid.decode(self.codes_OI)


def fit(weight_OI: torch.Tensor, *, bits: int, group_size: int | None, symmetric: bool, dtype: torch.dtype) -> Grid:
    """The grid that spans each group. `dtype`: the scales' storage format, bf16 or f16. `group_size` divides I.

    Values must be finite. A group of zeros has the scale 1.
    """
    grouped_OGS = weight_OI.to(torch.float32).reshape(len(weight_OI), -1, group_size or weight_OI.shape[1])
    if symmetric:
        scale_OG = stored(grouped_OGS.abs().amax(-1) / (2 ** (bits - 1) - 1), dtype)
        return Grid(bits, group_size, scale_OG, None)
    top = 2**bits - 1
    least_OG, most_OG = grouped_OGS.amin(-1).clamp_(max=0), grouped_OGS.amax(-1).clamp_(min=0)
    scale_OG = stored((most_OG - least_OG) / top, dtype)
    return Grid(bits, group_size, scale_OG, (-least_OG / scale_OG).round_().clamp_(0, top))


def stored(scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A scale as `dtype` holds it, float32 again; one that is 0 there (a group of zeros, or of numbers too small to
    tell apart) is 1."""
    kept = scale.to(dtype).to(torch.float32)
    return torch.where(kept == 0, 1.0, kept)


def scale_dtype(source: str) -> torch.dtype:
    """The 16-bit format that scales are stored in beside weights of a dtype (`BF16`, `F16`, `F32`)."""
    return torch.float16 if source == "F16" else torch.bfloat16


def bits_per_weight(inputs: int, *, bits: int, group_size: int | None, symmetric: bool) -> float:
    """Storage of a weight of input dimension `inputs`: its code, and its share of the group's 16-bit scale and
    (asymmetric) zero point of `bits` bits."""
    return bits + (16 + (0 if symmetric else bits)) / (group_size or inputs)
