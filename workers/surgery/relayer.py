"""Layers put together again: which of the old ones is where, without reading one."""

from collections.abc import Sequence

from app.models.layer_names import InLayer, in_layer
from app.models.steps.layers import relayered
from workers.surgery.shop import StepRun


def relayer(shop: StepRun, order: Sequence[int]) -> None:
    """Makes layer i of the result the source's layer `order[i]`; everything outside the layers stays."""
    outside: list[str] = []
    within: dict[int, list[InLayer]] = {}
    for name in shop.source.tensors:
        place = in_layer(name)
        if place is None:
            outside.append(name)
        else:
            within.setdefault(place.layer, []).append(place)
    shop.clear()
    for name in outside:
        if not (shop.source.tied and name == "lm_head.weight"):
            shop.keep(name, of=name)
    for number, layer in enumerate(order):
        for place in within[layer]:
            shop.keep(place.numbered(number), of=place.numbered(layer))
    shop.config.update(relayered(shop.source.architecture, shop.source.config, order))
