"""Layers put together again: which of the old ones is where, without reading one."""

from collections.abc import Sequence

from app.models.layer_names import InLayer, in_layer
from app.models.steps.layers import relayered
from workers.surgery.step_run import StepRun


def relayer(context: StepRun, order: Sequence[int]) -> None:
    """Makes layer i of the result the source's layer `order[i]`; everything outside the layers stays."""
    outside: list[str] = []
    within: dict[int, list[InLayer]] = {}
    for name in context.source.tensors:
        place = in_layer(name)
        if place is None:
            outside.append(name)
        else:
            within.setdefault(place.layer, []).append(place)
    context.clear()
    for name in outside:
        if not (context.source.tied and name == "lm_head.weight"):
            context.keep(name, of=name)
    for number, layer in enumerate(order):
        for place in within[layer]:
            context.keep(place.numbered(number), of=place.numbered(layer))
    context.config.update(relayered(context.source.architecture, context.source.config, order))
