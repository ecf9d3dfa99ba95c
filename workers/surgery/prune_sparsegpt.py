"""SparseGPT: weights go column by column, and those not yet visited make the error good.

Frantar and Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", 2301.00774. From there:
the damped Hessian, the upper Cholesky factor U of its inverse, blocks of 128 columns. The
mask of a block is chosen on w²/U_ii² with the errors of all columns before it taken in, N:M M columns at a time. Errors
are propagated within the
block at once and to the columns after it block by block. Ours: exact counts (rounded cumulatively over the blocks) with
a fixed order of ties; weights that are 0 already, then inputs that are always 0, go first. U from one Cholesky factor
of the flipped Hessian (H = R Rᵀ, R upper triangular, gives H⁻¹ = Uᵀ U with U = R⁻¹), without inverting H.

Shapes: O output dimension, I input dimension.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from app.contracts.notice import Notice
from app.recipes.notices import StepNotice
from app.recipes.prune import PruneSparsegpt
from workers.surgery.blockwise.observers import SecondMoment
from workers.surgery.callbacks import CheckCancelled, never_cancelled
from workers.surgery.prune_calibrated import CalibratedPruning
from workers.surgery.prune_masks import Quota, lowest, mask_pattern
from workers.surgery.step_run import StepRun

COLUMNS = 128


@dataclass(frozen=True)
class Inverse:
    """U (I, I), upper triangular with Uᵀ U = H⁻¹; (I) inputs that are always 0; the damping that it took."""

    factor_II: torch.Tensor
    dead_I: torch.Tensor
    damping: float


def inverse_factor(moment_II: torch.Tensor, damping: float) -> Inverse:
    """Of H = `moment_II` (E[x xᵀ], float32, finite) plus `damping` times the mean of its diagonal.

    An input that is always 0 takes no part in that mean, and has it on the diagonal. Where H is not positive definite
    in float32 the damping is raised tenfold until it is.
    """
    diagonal_I = moment_II.diagonal()
    dead_I = diagonal_I == 0
    mean = float(diagonal_I[~dead_I].mean()) if not bool(dead_I.all()) else 1.0
    base_II = moment_II / mean + torch.diag(dead_I.to(moment_II.dtype))
    identity_II = torch.eye(len(moment_II))
    while True:
        lower_II, failed = torch.linalg.cholesky_ex((base_II + damping * identity_II).flip(0, 1))
        if not int(failed):
            break
        damping *= 10
    # U of the Hessian over its mean: a factor of all of U changes neither mask nor correction
    factor_II = torch.linalg.solve_triangular(lower_II.flip(0, 1), identity_II, upper=True)
    return Inverse(factor_II, dead_I, damping)


def sparsify(
    weight_OI: torch.Tensor, inverse: Inverse, quota: Quota, *, check_cancelled: CheckCancelled = never_cancelled
) -> torch.Tensor:
    """A float32 matrix pruned, what stays corrected."""
    # Transposed, so that a column of the weight, and all columns from one on, are contiguous.
    left_IO = weight_OI.T.contiguous().clone()
    factor_II, dead_I = inverse.factor_II, inverse.dead_I
    inputs = len(left_IO)
    for start, end in _blocks(inputs, quota):
        check_cancelled()
        factor = factor_II[start:end, start:end]
        block_BO = left_IO[start:end]
        errors_BO = torch.zeros_like(block_BO)
        gone_BO = torch.zeros_like(block_BO, dtype=torch.bool)
        if quota.pattern is None:
            score_BO = _score(block_BO, factor.diagonal(), dead_I[start:end])
            gone_BO = _mask(score_BO, quota, start, end, inputs)
        for column in range(end - start):
            if quota.pattern is not None and column % quota.pattern[1] == 0:
                rows = slice(column, column + quota.pattern[1])
                score_BO = _score(block_BO[rows], factor.diagonal()[rows], dead_I[start:end][rows])
                gone_BO[rows] = mask_pattern(score_BO.T, *quota.pattern).T
            errors_BO[column] = (block_BO[column] / factor[column, column]).masked_fill_(~gone_BO[column], 0)
            block_BO[column:].addr_(factor[column, column:], errors_BO[column], alpha=-1)
        block_BO.masked_fill_(gone_BO, 0)
        if end < inputs:
            left_IO[end:].addmm_(factor_II[start:end, end:].T, errors_BO, alpha=-1)
    return left_IO.T.contiguous()


def _blocks(inputs: int, quota: Quota) -> Iterator[tuple[int, int]]:
    size = COLUMNS
    if quota.pattern is not None:  # no group of M columns may lie in two blocks
        size += -COLUMNS % quota.pattern[1]
    return ((start, min(start + size, inputs)) for start in range(0, inputs, size))


def _score(block_BO: torch.Tensor, diagonal_B: torch.Tensor, dead_B: torch.Tensor) -> torch.Tensor:
    score_BO = (block_BO / diagonal_B[:, None]).square()
    score_BO[dead_B] = -0.5
    return score_BO.masked_fill_(block_BO == 0, -1.0)


def _mask(score_BO: torch.Tensor, quota: Quota, start: int, end: int, inputs: int) -> torch.Tensor:
    """What goes of the columns `start` to `end`: so many that the matrix, or each row, has its number at the end."""
    size, outputs = score_BO.shape
    if quota.by_row:
        counts_O = quota.of_rows(outputs)
        return lowest(score_BO.T.contiguous(), counts_O * end // inputs - counts_O * start // inputs).T
    count = quota.total * end // inputs - quota.total * start // inputs
    return lowest(score_BO.T.reshape(1, -1), torch.tensor([count])).reshape(outputs, size).T


class SparseGpt(CalibratedPruning[SecondMoment, Inverse]):
    """`prune.sparsegpt`."""

    moves = True

    def __init__(self, step: PruneSparsegpt) -> None:
        super().__init__(step, scope=step.scope)
        self._damping = step.damping
        self._check_cancelled: CheckCancelled = never_cancelled

    def observer(self, inputs: int) -> SecondMoment:
        """Second moments of the inputs."""
        return SecondMoment(inputs)

    def prepare(self, seen: SecondMoment, context: StepRun, name: str) -> Inverse:
        """The factor of the inverse Hessian. Warns where the text is too short, or more damping was needed."""
        self._check_cancelled = context.check_cancelled
        moment_II = seen.mean()
        inputs = len(moment_II)
        if seen.tokens < inputs:
            short = StepNotice.SINGULAR_COVARIANCE(tokens=seen.tokens, inputs=inputs, module=_kind(name))
            self._warn(context, short)
        inverse = inverse_factor(moment_II, self._damping)
        if inverse.damping != self._damping:
            self._warn(context, StepNotice.TOO_LITTLE_DAMPING(asked=self._damping, module=_kind(name)))
            context.figures["most_damping"] = max(inverse.damping, context.figures.get("most_damping", 0.0))
        return inverse

    def prune(self, weight_OI: torch.Tensor, prepared: Inverse, quota: Quota) -> torch.Tensor:
        """Pruned and corrected."""
        return sparsify(weight_OI, prepared, quota, check_cancelled=self._check_cancelled)

    def _warn(self, context: StepRun, warning: Notice) -> None:
        if warning not in context.warnings:
            context.warn(warning)


def _kind(name: str) -> str:
    return name.removesuffix(".weight").rpartition(".")[2]
