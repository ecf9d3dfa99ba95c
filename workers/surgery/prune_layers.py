"""Whole decoder layers go: those named, or those that change the hidden states least.

Men et al., "ShortGPT: Layers in Large Language Models are More Redundant Than You Expect", 2403.03853. From there: the
block influence, 1 − the mean over tokens of the cosine between what enters a layer and what leaves it. All layers are
judged on the whole model, and those of least influence go at once. Ours: of equal influences the earlier layer goes.

Shapes: n windows, L tokens of a window, D hidden size.
"""

import torch

from app.contracts.errors import ErrorCode, HemostatError
from app.models.steps.prune import layers_to_go
from app.recipes.prune import PruneLayers
from workers.surgery.relayer import relayer
from workers.surgery.step_run import StepRun
from workers.surgery.walking import walk_of


class DropLayers:
    """`prune.layers`."""

    version = 1

    def __init__(self, step: PruneLayers) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Puts the model together again without the layers that go."""
        if self._step.layers is not None:
            gone = set(self._step.layers)
        else:
            influence = block_influence(context)
            for layer, value in enumerate(influence):
                context.figures[f"influence_of_layer_{layer}"] = value
            order = sorted(range(len(influence)), key=lambda layer: (influence[layer], layer))
            gone = set(order[: layers_to_go(context.source, self._step)])
        for layer in sorted(gone):
            context.figures[f"dropped_layer_{layer}"] = 1.0
        relayer(context, [layer for layer in range(context.source.layers) if layer not in gone])


def block_influence(context: StepRun) -> list[float]:
    """Of each layer, over the calibration text; between 0 and 2. Raises ACTIVATIONS_NOT_FINITE."""
    walk = walk_of(context)
    found = []
    for block in walk.blocks():
        total, tokens = 0.0, 0
        for _, entering_NLD, leaving_NLD in block.outputs():
            cosine_NL = torch.cosine_similarity(entering_NLD.float(), leaving_NLD.float(), dim=-1)
            total += float(cosine_NL.sum(dtype=torch.float64))
            tokens += cosine_NL.numel()
        if not torch.isfinite(torch.tensor(total)):
            raise HemostatError(
                ErrorCode.ACTIVATIONS_NOT_FINITE,
                f"the output of layer {block.index} is NaN or infinite on the calibration text",
                hint="the model overflows in its dtype; check the layers before it",
            )
        found.append(1 - total / tokens)
    return found
