"""Steps with a part left out, to see what the part gains."""

import torch

from workers.mitigation.gradient_pruning.step import GradientPruning
from workers.mitigation.gradients import LayerGradients


def inputs_alone(of: LayerGradients) -> torch.Tensor:
    """(O, I) E[x²], the same for every output: with it the sweep is SparseGPT's."""
    return of.inputs_I.expand(len(of.outputs_O), -1).clone()


class ByInputs(GradientPruning):
    """`prune.gradient` that chooses weights without gradients. The training of a block keeps its metric, in which the
    gradients at the block's output are."""

    # a version of its own: another key of the store
    version = -GradientPruning.version
    importance = staticmethod(inputs_alone)
