"""Wanda: weights of the smallest |W|·‖X‖ go, compared within each output row (or the matrix).

Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", 2306.11695. From there: the score, the
comparison within a row, N:M, and that blocks are pruned one after the other. Ours: exact counts with a fixed order of
ties. ‖X_j‖ is divided by the root of the number of tokens, which changes no comparison.

Shapes: O output dimension, I input dimension.
"""

import torch

from app.recipes.prune import PruneWanda
from workers.surgery.blockwise.observers import Channels
from workers.surgery.prune_calibrated import CalibratedPruning
from workers.surgery.prune_masks import Quota, mask, zeros_first
from workers.surgery.step_run import StepRun


def wanda_score(weight_OI: torch.Tensor, norm_I: torch.Tensor) -> torch.Tensor:
    """|W_oi|·‖X_i‖, float32."""
    return weight_OI.abs() * norm_I


class Wanda(CalibratedPruning[Channels, torch.Tensor]):
    """`prune.wanda`."""

    def __init__(self, step: PruneWanda) -> None:
        super().__init__(step, scope=step.scope)

    def observer(self, inputs: int) -> Channels:
        """Sums of squares of each input channel."""
        return Channels(inputs)

    def prepare(self, seen: Channels, context: StepRun, name: str) -> torch.Tensor:
        """(I) ‖X_i‖ over √tokens."""
        return seen.norm()

    def prune(self, weight_OI: torch.Tensor, prepared: torch.Tensor, quota: Quota) -> torch.Tensor:
        """Without the weights of smallest score."""
        gone_OI = mask(zeros_first(wanda_score(weight_OI, prepared), weight_OI), quota)
        return weight_OI.masked_fill(gone_OI, 0)
