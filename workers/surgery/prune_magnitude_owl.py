"""Magnitude pruning where each layer has a share of its own, as OWL gives it (`allocation_owl`).

The shares come from the activations of the model as the steps before left it; of each matrix, or row, the smallest
magnitudes go, as they do without.
"""

from app.recipes.prune import PruneMagnitude
from workers.surgery.blockwise.observers import Channels
from workers.surgery.prune_calibrated import CalibratedPruning
from workers.surgery.prune_masks import mask
from workers.surgery.step_run import StepRun


class OwlMagnitude(CalibratedPruning[Channels, None]):
    """`prune.magnitude` with `allocation` owl."""

    def __init__(self, step: PruneMagnitude) -> None:
        super().__init__(step, scope=step.scope)

    def run(self, context: StepRun) -> None:
        """One walk over the text for the shares, then weight by weight."""
        quotas = self._quotas(context)
        for done, weight in enumerate(context.weights):
            context.check_cancelled()
            context.progress("surgery", done, len(context.weights))
            weight_OI, quota = context.read(weight.name), quotas[weight.name]
            gone_OI = mask(weight_OI.float().abs(), quota)
            context.put(weight.name, weight_OI.masked_fill(gone_OI, 0), sparsity=quota.share)
