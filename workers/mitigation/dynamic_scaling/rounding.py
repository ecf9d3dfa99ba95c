"""Weights rounded column by column, the error of each made good by those to come, on grids chosen beforehand.

Shapes: O output dimension, I input dimension, G groups of a row, S weights of a group, K candidate grids, B columns
whose errors reach those behind them together.

Error propagation is GPTQ's (arXiv 2210.17323): with H⁻¹ = UᵀU, U upper triangular, column j is rounded. With
e = (w − ŵ) / U_jj, the columns after it lose e · U_j. The sum Σ e² over all columns is exactly the layer's output error
tr((W − Ŵ) H (W − Ŵ)ᵀ). Columns may go in another order than they stand in (GPTQ's act-order, groups staying where they
are). Each group's scale and zero point are searched: the candidate grid of the least Σ_j H_jj (w − ŵ)²,
rounded to nearest. So little is left to propagate (AWQ clips by the same measure, arXiv
2306.00978); no group of a row does worse in it than on the grid that spans its range.
"""

from dataclasses import dataclass

import torch

from workers.mitigation.dynamic_scaling.grids import Scheme, candidates
from workers.surgery.callbacks import CheckCancelled, never_cancelled
from workers.surgery.quantize_grid import Grid, Quantized

# The greatest bf16 below one half: added to a code it still rounds to it.
NEARLY_HALF = 0.498046875
# Columns whose errors reach those behind them together, in one product.
COLUMNS = 32


@dataclass
class Rounded:
    """`codes_OI` (uint8); `scale_OG`, `zero_OG` (float32); `rest_OI` (bf16): what rounding took away, in steps of the
    grid, less than half a one either way, or more where the grid ends. `loss_O`: each row's share of
    tr((W − Ŵ) H (W − Ŵ)ᵀ), H damped."""

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


def round_weight(
    weight_OI: torch.Tensor,
    upper_II: torch.Tensor,
    scheme: Scheme,
    keep_OI: torch.Tensor,
    check_cancelled: CheckCancelled = never_cancelled,
    *,
    order_I: torch.Tensor | None = None,
    power_I: torch.Tensor | None = None,
) -> Rounded:
    """Rounds a weight. `upper_II`: U above, its columns in `order_I` (default: as they stand). If `keep_OI` is false
    the weight is 0 and stays 0. `power_I`: H's diagonal (default: all alike)."""
    outputs, inputs = weight_OI.shape
    size = scheme.group(inputs)
    order_I = torch.arange(inputs) if order_I is None else order_I
    power_I = torch.ones(inputs) if power_I is None else power_I
    scale_GO, zero_GO = search(weight_OI.to(torch.float32) * keep_OI, power_I, scheme, check_cancelled)
    order = order_I.tolist()
    diagonal = upper_II.diagonal().tolist()
    # Columns are rows here, so that each is contiguous.
    left_IO = weight_OI.to(torch.float32).T[order_I].contiguous()
    keep_IO = None if bool(keep_OI.all()) else keep_OI.T[order_I]
    codes_IO = torch.empty(inputs, outputs, dtype=torch.uint8)
    rest_IO = torch.empty(inputs, outputs, dtype=torch.bfloat16)
    loss_O = torch.zeros(outputs)
    for start in range(0, inputs, COLUMNS):
        check_cancelled()
        end = min(inputs, start + COLUMNS)
        error_BO = torch.empty(end - start, outputs)
        for column in range(start, end):
            scale_O, zero_O = scale_GO[order[column] // size], zero_GO[order[column] // size]
            wanted_O = left_IO[column] if keep_IO is None else left_IO[column] * keep_IO[column]
            level_O = wanted_O / scale_O
            code_O = torch.minimum(torch.maximum(level_O.round(), -zero_O), scheme.top - zero_O)
            codes_IO[column] = code_O + zero_O
            rest_IO[column] = taken_away(level_O.sub_(code_O))
            value_O = code_O.mul_(scale_O)
            error_O = error_BO[column - start]
            # The column as the errors before made it, its pruned weights included: their error is passed on too.
            torch.sub(left_IO[column], value_O, out=error_O).div_(diagonal[column])
            left_IO[column + 1 : end].addr_(upper_II[column, column + 1 : end], error_O, alpha=-1)
        loss_O += error_BO.square().sum(0)
        left_IO[end:].addmm_(upper_II[start:end, end:].T, error_BO, alpha=-1)
    back_I = torch.argsort(order_I)
    return Rounded(
        scheme,
        codes_IO[back_I].T.contiguous(),
        scale_GO.T.contiguous(),
        zero_GO.T.contiguous(),
        rest_IO[back_I].T.contiguous(),
        loss_O,
    )


def taken_away(rest: torch.Tensor) -> torch.Tensor:
    """What rounding takes away, such that added to the code in bf16 it rounds to it. Beyond an end of the grid, where
    it is more than half a step, as it is."""
    return torch.where(rest.abs() > 0.5, rest, rest.clamp(-NEARLY_HALF, NEARLY_HALF))


def nearest(
    weight_OI: torch.Tensor,
    scheme: Scheme,
    power_I: torch.Tensor,
    check_cancelled: CheckCancelled = never_cancelled,
) -> torch.Tensor:
    """(O, I) float32: a weight rounded to nearest on its searched grids, no error made good by another."""
    weight_OI = weight_OI.to(torch.float32)
    scale_GO, zero_GO = search(weight_OI, power_I, scheme, check_cancelled)
    zero_OG = None if scheme.symmetric else zero_GO.T
    return Grid(scheme.bits, scheme.group_size, scale_GO.T, zero_OG).nearest(weight_OI)


def search(
    weight_OI: torch.Tensor,
    power_I: torch.Tensor,
    scheme: Scheme,
    check_cancelled: CheckCancelled = never_cancelled,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(scale, zero), each (G, O): of the candidates of each group the one with the least Σ_j power_j (w − ŵ)²."""
    scales, zeros = [], []
    size = scheme.group(weight_OI.shape[1])
    for group_OS, power_S in zip(torch.split(weight_OI, size, 1), torch.split(power_I, size), strict=True):
        check_cancelled()
        scale_KO, zero_KO = candidates(group_OS, scheme)
        errors = []
        for scale_O, zero_O in zip(scale_KO.unsqueeze(-1), zero_KO.unsqueeze(-1), strict=True):
            code_OS = torch.minimum(torch.maximum((group_OS / scale_O).round_(), -zero_O), scheme.top - zero_O)
            errors.append(code_OS.mul_(scale_O).sub_(group_OS).square_() @ power_S)
        best_1O = torch.stack(errors).argmin(0, keepdim=True)
        scales.append(scale_KO.gather(0, best_1O)[0])
        zeros.append(zero_KO.gather(0, best_1O)[0])
    return torch.stack(scales), torch.stack(zeros)
