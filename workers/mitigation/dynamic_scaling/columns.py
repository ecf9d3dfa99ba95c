"""Input columns that are kept apart from the others of a weight, on eight bits each.

A few input channels carry so much that what few bits do to their columns is most of what a layer loses, and where the
weights of such a column are large it takes the range of its group besides. Kept apart it is no part of any group: its
weights are on a symmetric eight-bit grid of the column's own. Where it is from: OWQ (arXiv 2306.02272) keeps whole
columns, by the diagonal of the Hessian times the error of rounding them, SpQR (arXiv 2306.03078) single weights and
their places. OWQ's are in float16; here they have eight bits, which leave little of what four do.

Shapes: O output dimension, I input dimension, K columns that are kept apart.
"""

from dataclasses import dataclass

import torch

from workers.mitigation.dynamic_scaling.grids import COLUMN_BITS
from workers.surgery.quantize_grid import stored

# One of so many input columns may be kept apart, at least one.
SHARE = 64
_TOP = 2 ** (COLUMN_BITS - 1) - 1


@dataclass(frozen=True)
class Columns:
    """`index_K`: which input columns; `codes_OK` (int8, −127 … 127); `scale_K`: float32, as 16 bits hold it."""

    index_K: torch.Tensor
    codes_OK: torch.Tensor
    scale_K: torch.Tensor

    @classmethod
    def of(cls, weight_OI: torch.Tensor, index_K: torch.Tensor, dtype: torch.dtype) -> "Columns":
        """The columns of a weight, each rounded to nearest on a grid of its own. `dtype`: the scales'."""
        grids = [on_its_grid(weight_O, dtype) for weight_O in weight_OI[:, index_K].T]
        codes_OK = torch.stack([codes_O for codes_O, _ in grids], 1)
        return cls(index_K, codes_OK, torch.tensor([scale for _, scale in grids]))

    def weight(self) -> torch.Tensor:
        """(O, K) float32."""
        return self.codes_OK.to(torch.float32) * self.scale_K

    def over(self, weight_OI: torch.Tensor) -> torch.Tensor:
        """A weight with these columns in the place of its own."""
        return weight_OI.index_copy(1, self.index_K, self.weight().to(weight_OI.dtype))


def on_its_grid(weight_O: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, float]:
    """(codes (O) int8, scale) of one column."""
    scale = stored(weight_O.abs().amax() / _TOP, dtype)
    return (weight_O / scale).round().clamp(-_TOP, _TOP).to(torch.int8), float(scale)


def count(inputs: int) -> int:
    """How many columns of a layer may be kept apart."""
    return max(1, inputs // SHARE)


def most_sensitive(
    weight_OI: torch.Tensor, rounded_OI: torch.Tensor, power_I: torch.Tensor, fisher_O: torch.Tensor | None, most: int
) -> torch.Tensor:
    """The `most` columns in which rounding costs most, ascending: power_j Σ_o F_o (w_oj − ŵ_oj)².

    `power_I`: E[w x²] of the inputs, w what a token counts; `fisher_O`: E[δ²] of the outputs (default: all alike).
    """
    error_OI = (weight_OI - rounded_OI).square()
    error_I = error_OI.sum(0) if fisher_O is None else fisher_O @ error_OI
    return (power_I * error_I).topk(most).indices.sort().values
