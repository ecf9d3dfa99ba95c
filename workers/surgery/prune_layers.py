"""Whole decoder layers go: those named, or those that change the hidden states least.

Men et al., "ShortGPT: Layers in Large Language Models are More Redundant Than You Expect", 2403.03853. From there: the
block influence, 1 − the mean over tokens of the cosine between what enters a layer and what leaves it; all layers are
judged on the whole model, and those of least influence go at once. Ours: of equal influences the earlier layer goes.

Shapes: n windows, L tokens of a window, D hidden size.
"""

import torch
from transformers import AutoConfig

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.recipe import PruneLayers
from app.models.steps.prune import layers_to_go, with_layers
from workers.surgery.prune_calibrated import walk_of
from workers.surgery.shop import Shop


class DropLayers:
    """`prune.layers`."""

    version = 1

    def __init__(self, step: PruneLayers) -> None:
        self._step = step

    def run(self, shop: Shop) -> None:
        """Puts the model together anew without the layers that go."""
        if self._step.layers is not None:
            gone = set(self._step.layers)
        else:
            influence = block_influence(shop)
            for layer, value in enumerate(influence):
                shop.figures[f"influence_of_layer_{layer}"] = value
            order = sorted(range(len(influence)), key=lambda layer: (influence[layer], layer))
            gone = set(order[: layers_to_go(shop.source, self._step)])
        for layer in sorted(gone):
            shop.figures[f"dropped_layer_{layer}"] = 1.0
        rebuild(shop, [layer for layer in range(shop.source.layers) if layer not in gone])


def block_influence(shop: Shop) -> list[float]:
    """Of each layer, over the calibration text; between 0 and 2. Raises ACTIVATIONS_NOT_FINITE."""
    walk = walk_of(shop)
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


def rebuild(shop: Shop, kept: list[int]) -> None:
    """The result is the source with the layers `kept` alone, numbered anew."""
    source, before = shop.source, dict(shop.changes)
    tensors = [name for name in source.tensors if not (source.tied and name == "lm_head.weight")]
    new_of = {old: new for new, old in enumerate(kept)}
    shop.clear()
    for name in tensors:
        parts = name.split(".")
        if name.startswith("model.layers."):
            layer = int(parts[2])
            if layer not in new_of:
                continue
            parts[2] = str(new_of[layer])
        renamed = ".".join(parts)
        shop.keep(renamed, of=name)
        if name in before:
            shop.changes[renamed] = before[name].model_copy(update={"name": renamed})
    config = dict(source.config)
    # Kinds of layers that follow from their number must be told, now that the numbers change.
    types = getattr(AutoConfig.for_model(**config), "layer_types", None)
    if types and len(set(types)) > 1:
        config["layer_types"] = list(types)
    shop.config.clear()
    shop.config.update(with_layers(config, kept))
