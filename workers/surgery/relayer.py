"""Layers put together anew: which of the old ones stands where, without reading one."""

import re
from collections.abc import Sequence

from app.models.steps.layers import relayered
from workers.surgery.shop import Shop

_LAYER = re.compile(r"(?P<before>(?:.*\.)?(?:layers|h|blocks)\.)(?P<layer>\d+)(?P<after>\..+)")


def relayer(shop: Shop, order: Sequence[int]) -> None:
    """Makes layer i of the result the source's layer `order[i]`; everything outside the layers stays."""
    outside: list[str] = []
    within: dict[int, list[tuple[str, str, str]]] = {}
    for name in shop.source.tensors:
        match = _LAYER.fullmatch(name)
        if match is None:
            outside.append(name)
        else:
            within.setdefault(int(match["layer"]), []).append((name, match["before"], match["after"]))
    shop.clear()
    for name in outside:
        if not (shop.source.tied and name == "lm_head.weight"):
            shop.keep(name, of=name)
    for number, layer in enumerate(order):
        for name, before, after in within[layer]:
            shop.keep(f"{before}{number}{after}", of=name)
    shop.config.update(relayered(shop.source.architecture, shop.source.config, order))
