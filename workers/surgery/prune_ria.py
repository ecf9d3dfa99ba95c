"""RIA: a weight's importance relative to its row and its column, times the activation norm to a power.

Zhang et al., "Plug-and-Play: An Efficient Post-training Pruning Method for Large Language Models" (ICLR 2024). From
there: the score (|W_oi| / Σ_i |W_oi| + |W_oi| / Σ_o |W_oi|)·‖X_i‖^a and a = 0.5. Not taken: the permutation of channels
for N:M. Ours: exact counts with a fixed order of ties.

Shapes: O output dimension, I input dimension.
"""

import torch

from app.recipes.prune import PruneRia
from workers.surgery.blockwise.observers import Channels
from workers.surgery.prune_calibrated import CalibratedPruning
from workers.surgery.prune_masks import Quota, mask, zeros_first
from workers.surgery.step_run import StepRun

_LEAST = torch.finfo(torch.float32).tiny  # a row or column of zeros: 0 / tiny is 0


def ria_score(weight_OI: torch.Tensor, norm_I: torch.Tensor, power: float) -> torch.Tensor:
    """Relative importance times ‖X_i‖^power, float32."""
    size_OI = weight_OI.abs()
    by_row_OI = size_OI / size_OI.sum(dim=1, keepdim=True).clamp(min=_LEAST)
    by_column_OI = size_OI / size_OI.sum(dim=0, keepdim=True).clamp(min=_LEAST)
    return (by_row_OI + by_column_OI) * norm_I**power


class Ria(CalibratedPruning[Channels, torch.Tensor]):
    """`prune.ria`."""

    def __init__(self, step: PruneRia) -> None:
        super().__init__(step, scope=step.scope)
        self._power = step.power

    def observer(self, inputs: int) -> Channels:
        """Sums of squares of each input channel."""
        return Channels(inputs)

    def prepare(self, seen: Channels, context: StepRun, name: str) -> torch.Tensor:
        """(I) ‖X_i‖ over √tokens, which changes no comparison."""
        return seen.norm()

    def prune(self, weight_OI: torch.Tensor, prepared: torch.Tensor, quota: Quota) -> torch.Tensor:
        """Without the weights of smallest score."""
        gone_OI = mask(zeros_first(ria_score(weight_OI, prepared, self._power), weight_OI), quota)
        return weight_OI.masked_fill(gone_OI, 0)
