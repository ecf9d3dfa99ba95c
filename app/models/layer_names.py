"""Tensor names of decoder layers: `model.layers.3.mlp.up_proj.weight`, `h.3.attn.c_attn.weight`, `blocks.3.…`."""

import re
from dataclasses import dataclass

_IN_LAYER = re.compile(r"(?P<before>(?:.*\.)?(?:layers|h|blocks)\.)(?P<layer>\d+)\.(?P<path>.+)")


@dataclass(frozen=True)
class InLayer:
    """A name taken apart: `before` ends with a dot, `path` is what is behind the layer's number."""

    before: str
    layer: int
    path: str

    def numbered(self, layer: int) -> str:
        """The same in another layer."""
        return f"{self.before}{layer}.{self.path}"


def in_layer(name: str) -> InLayer | None:
    """The parts of a tensor's or module's name; None for one that is outside the layers."""
    match = _IN_LAYER.fullmatch(name)
    return None if match is None else InLayer(match["before"], int(match["layer"]), match["path"])
