"""Weights rounded column by column, the error of each made good by those to come, on grids chosen by that very error.

Shapes: O output dimension, I input dimension, G groups of a row, S weights of a group, K candidate grids.

Error propagation is GPTQ's (arXiv 2210.17323): with H⁻¹ = UᵀU, U upper triangular, column j is rounded, e = (w − ŵ) /
U_jj, and the columns after it lose e · U_j. Σ e² over all columns is exactly the layer's output error
tr((W − Ŵ) H (W − Ŵ)ᵀ). Ours: each group's scale and zero point are searched by rounding the group on every candidate
grid *with* the propagation inside it and comparing Σ e² row by row; no group of a row does worse than on the grid that
spans its range.
"""

from dataclasses import dataclass

import torch

from workers.mitigation.dynamic_scaling.grids import Scheme, candidates
from workers.surgery.callbacks import CheckCancelled, never_cancelled
from workers.surgery.quantize_grid import Grid, Quantized

# The greatest bf16 below one half: added to a code it still rounds to it.
NEARLY_HALF = 0.498046875


@dataclass
class Rounded:
    """`codes_OI` (uint8); `scale_OG`, `zero_OG` (float32); `rest_OI` (bf16): what rounding took away, in steps of the
    grid, less than half a one either way; `loss_O`: each row's share of tr((W − Ŵ) H (W − Ŵ)ᵀ), H damped."""

    scheme: Scheme
    codes_OI: torch.Tensor
    scale_OG: torch.Tensor
    zero_OG: torch.Tensor
    rest_OI: torch.Tensor
    loss_O: torch.Tensor

    def quantized(self) -> Quantized:
        """As other parts of the surgery know it."""
        scheme = self.scheme
        codes_OI = self.codes_OI.to(torch.int16)
        if scheme.symmetric:
            return Quantized(Grid(scheme.bits, scheme.group_size, self.scale_OG, None), codes_OI - scheme.half)
        return Quantized(Grid(scheme.bits, scheme.group_size, self.scale_OG, self.zero_OG), codes_OI)

    def weight(self) -> torch.Tensor:
        """What the codes mean, (O, I) float32."""
        return self.quantized().weight()

    def split(self, rows: list[int]) -> list["Rounded"]:
        """Rows of several layers that went through together, apart again."""
        fields = (self.codes_OI, self.scale_OG, self.zero_OG, self.rest_OI, self.loss_O)
        return [
            Rounded(self.scheme, *parts) for parts in zip(*(torch.split(field, rows) for field in fields), strict=True)
        ]


def round_weight(
    weight_OI: torch.Tensor,
    upper_II: torch.Tensor,
    scheme: Scheme,
    keep_OI: torch.Tensor,
    check_cancelled: CheckCancelled = never_cancelled,
) -> Rounded:
    """Rounds a weight. `upper_II`: U above; `keep_OI`: where it is false the weight is 0 and stays 0."""
    outputs, inputs = weight_OI.shape
    size = scheme.group(inputs)
    left_OI = weight_OI.to(torch.float32) * keep_OI
    codes_OI = torch.empty(outputs, inputs, dtype=torch.uint8)
    rest_OI = torch.empty(outputs, inputs, dtype=torch.bfloat16)
    scales, zeros = [], []
    loss_O = torch.zeros(outputs)
    for start in range(0, inputs, size):
        check_cancelled()
        span = slice(start, start + size)
        keep_OS, upper_SS = keep_OI[:, span], upper_II[span, span]
        group_OS = left_OI[:, span] * keep_OS
        scale_O, zero_O = search(group_OS, upper_SS, scheme, keep_OS)
        # The column as the errors before made it, its pruned weights included: their error is passed on too.
        found = _round(left_OI[:, span], upper_SS, scale_O, zero_O, scheme.top, keep_OS)
        codes_OI[:, span], rest_OI[:, span] = found.codes_SO.T.to(torch.uint8), found.rest_SO.T.to(torch.bfloat16)
        loss_O += found.error_SO.square().sum(0)
        scales.append(scale_O)
        zeros.append(zero_O)
        if start + size < inputs:
            left_OI[:, start + size :] -= found.error_SO.T @ upper_II[span, start + size :]
    return Rounded(scheme, codes_OI, torch.stack(scales, 1), torch.stack(zeros, 1), rest_OI, loss_O)


def search(
    group_OS: torch.Tensor, upper_SS: torch.Tensor, scheme: Scheme, keep_OS: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(scale, zero) of each row, each (O): of the candidates the one with the least propagated error."""
    scale_KO, zero_KO = candidates(group_OS, scheme)
    many, outputs = scale_KO.shape
    found = _round(
        group_OS.repeat(many, 1), upper_SS, scale_KO.flatten(), zero_KO.flatten(), scheme.top, keep_OS.repeat(many, 1)
    )
    best_1O = found.error_SO.square().sum(0).reshape(many, outputs).argmin(0, keepdim=True)
    return scale_KO.gather(0, best_1O)[0], zero_KO.gather(0, best_1O)[0]


@dataclass
class _Group:
    """Columns are rows here, so that each is contiguous."""

    codes_SO: torch.Tensor
    error_SO: torch.Tensor
    rest_SO: torch.Tensor


def _round(
    group_OS: torch.Tensor,
    upper_SS: torch.Tensor,
    scale_O: torch.Tensor,
    zero_O: torch.Tensor,
    top: int,
    keep_OS: torch.Tensor,
) -> _Group:
    left_SO = group_OS.T.contiguous()
    keep_SO = None if bool(keep_OS.all()) else keep_OS.T
    size = len(left_SO)
    codes_SO, error_SO = torch.empty_like(left_SO), torch.empty_like(left_SO)
    diagonal = upper_SS.diagonal().tolist()
    inverse_O, least_O, most_O = 1 / scale_O, -zero_O, top - zero_O
    rest_SO = torch.empty_like(left_SO)
    for j in range(size):
        torch.mul(left_SO[j], inverse_O, out=rest_SO[j])
        if keep_SO is not None:
            rest_SO[j] *= keep_SO[j]
        code_O = torch.minimum(torch.maximum(rest_SO[j].round(), least_O), most_O)
        codes_SO[j] = code_O
        rest_SO[j] -= code_O
        torch.sub(left_SO[j], code_O.mul_(scale_O), out=error_SO[j]).div_(diagonal[j])
        if j + 1 < size:
            left_SO[j + 1 :].addr_(upper_SS[j, j + 1 :], error_SO[j], alpha=-1)
    return _Group(codes_SO.add_(zero_O), error_SO, rest_SO.clamp_(-NEARLY_HALF, NEARLY_HALF))
