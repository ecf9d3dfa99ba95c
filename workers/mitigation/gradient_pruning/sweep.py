"""Which weights of a matrix go, and what the others take over: an OBS sweep that knows what an output is worth.

SparseGPT (Frantar and Alistarh 2023, arXiv 2301.00774) minimizes E‖(W − W')x‖², every output alike. Here the error of
output o counts E[δ_o²], δ the gradient of the divergence there (the diagonal of K-FAC's output factor). It is corrected
weight by weight by what the accumulated Fisher says beyond the product of its factors. A weight's price is
w²/[H⁻¹]_ii times `gain_oi` = F_oi / E[x_i²]. Rows stay independent of each other, so that the update of a row is
SparseGPT's; what changes is which weights go, and from which rows. How many go from each block of columns is given by
the prices before the sweep instead of the same share everywhere. Both are ours.

Shapes: O output dimension, I input dimension, B columns of a block.
"""

import torch

from app.contracts.errors import ErrorCode, HemostatError
from workers.surgery.callbacks import CheckCancelled, never_cancelled
from workers.surgery.prune_masks import lowest, mask_pattern

COLUMNS = 128


def inverse_cholesky(moment_II: torch.Tensor, damping: float) -> torch.Tensor:
    """(I, I) upper triangular U with UᵀU = (H + damping · mean diagonal)⁻¹, H = E[x xᵀ].

    Inputs that are always 0 count as 1. The damping is raised tenfold until the matrix is positive definite in float32.
    Raises `HemostatError(ACTIVATIONS_NOT_FINITE)` if H is not finite.
    """
    if not bool(torch.isfinite(moment_II).all()):
        raise HemostatError(
            ErrorCode.ACTIVATIONS_NOT_FINITE,
            "the second moment of a layer's inputs is NaN or infinite on the calibration text",
            hint="the model overflows in its dtype on this text",
        )
    diagonal_I = moment_II.diagonal()
    dead_I = diagonal_I <= 0
    hessian_II = moment_II + torch.diag(dead_I.to(moment_II.dtype))
    mean = float(hessian_II.diagonal().mean())
    while True:
        lower_II, failed = torch.linalg.cholesky_ex(
            (hessian_II + damping * mean * torch.eye(len(hessian_II), dtype=hessian_II.dtype)).flip(0, 1)
        )
        if not int(failed):
            break
        damping *= 10
    # H = R Rᵀ with R upper triangular, so H⁻¹ = R⁻ᵀR⁻¹ and U = R⁻¹
    identity_II = torch.eye(len(hessian_II), dtype=hessian_II.dtype)
    factor_II: torch.Tensor = torch.linalg.solve_triangular(lower_II.flip(0, 1), identity_II, upper=True)
    return factor_II


def sweep(
    weight_OI: torch.Tensor,
    factor_II: torch.Tensor,
    gain_OI: torch.Tensor,
    *,
    count: int,
    pattern: tuple[int, int] | None = None,
    update: bool = True,
    check_cancelled: CheckCancelled = never_cancelled,
) -> torch.Tensor:
    """A float32 matrix with exactly `count` zeros more or less by the rules above, or N of every M kept.

    `factor_II`: of `inverse_cholesky`. Weights that are 0 already go first and count. Without `update` the weights that
    stay keep their values.
    """
    outputs, inputs = weight_OI.shape
    left_OI = weight_OI.clone()
    scale_I = factor_II.diagonal().square().reciprocal()
    size = COLUMNS if pattern is None else max(1, COLUMNS // pattern[1]) * pattern[1]
    gone_OI = torch.zeros_like(weight_OI, dtype=torch.bool)
    counts = _counts(_score(weight_OI, scale_I, gain_OI), count, size) if pattern is None else []
    for turn, start in enumerate(range(0, inputs, size)):
        check_cancelled()
        end = min(start + size, inputs)
        columns = slice(start, end)
        factor_BB = factor_II[columns, columns]
        block_BO = left_OI[:, columns].T.contiguous()
        errors_BO = torch.zeros_like(block_BO)
        if pattern is None:
            score_OB = _score(block_BO.T, scale_I[columns], gain_OI[:, columns])
            gone_OB = lowest(score_OB.reshape(1, -1), torch.tensor([counts[turn]])).reshape(outputs, -1)
            gone_BO = gone_OB.T.contiguous()
        else:
            gone_BO = torch.zeros_like(block_BO, dtype=torch.bool)
        for column in range(end - start):
            if pattern is not None and column % pattern[1] == 0:
                part = slice(column, column + pattern[1])
                here = slice(start + column, start + column + pattern[1])
                score_OM = _score(block_BO[part].T, scale_I[here], gain_OI[:, here])
                gone_BO[part] = mask_pattern(score_OM, *pattern).T
            if update:
                errors_BO[column] = (block_BO[column] / factor_BB[column, column]).masked_fill_(~gone_BO[column], 0)
                block_BO[column:].addr_(factor_BB[column, column:], errors_BO[column], alpha=-1)
        left_OI[:, columns] = block_BO.T
        gone_OI[:, columns] = gone_BO.T
        if update and end < inputs:
            left_OI[:, end:].addmm_(errors_BO.T, factor_II[columns, end:], alpha=-1)
    return left_OI.masked_fill_(gone_OI, 0)


def _score(weight_OI: torch.Tensor, scale_I: torch.Tensor, gain_OI: torch.Tensor) -> torch.Tensor:
    score_OI = weight_OI.square() * scale_I * gain_OI
    return score_OI.masked_fill(weight_OI == 0, -1.0)


def _counts(score_OI: torch.Tensor, count: int, size: int) -> list[int]:
    """How many of the `count` lowest lie in each block of columns."""
    gone_OI = lowest(score_OI.reshape(1, -1), torch.tensor([count])).reshape(score_OI.shape)
    return [int(gone_OI[:, start : start + size].sum()) for start in range(0, score_OI.shape[1], size)]
