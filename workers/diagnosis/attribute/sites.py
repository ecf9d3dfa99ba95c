"""The parts of a model that can be swapped, as pieces of named tensors.

A part is a whole layer, a linear module with its bias, a norm, a group of attention heads, or an expert. Outside the
layers it is the embedding, the final norm or the head. A group of heads is the query heads that share a key and value
head: their rows of q, k, v and columns of o.

On a model with tied embeddings the one matrix is two parts: where tokens come in, and where logits are made.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from app.kinds.attribute.report import SiteKind
from app.kinds.attribute.request import SiteLevel
from app.models.checkpoint import CheckpointInfo
from app.models.modules import natural_key
from app.models.shapes import LAYOUTS

EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
_IN_LAYER = re.compile(r"model\.layers\.(?P<layer>\d+)\.(?P<path>.+)")
_EXPERT = re.compile(r"(?P<module>.+\.experts\.\d+)\..+")


@dataclass(frozen=True)
class Piece:
    """Rows (`dim` 0) or columns (1) `start` to `stop` of a tensor; `dim` None is all of it."""

    tensor: str
    dim: int | None = None
    start: int = 0
    stop: int = 0


@dataclass(frozen=True)
class Site:
    """One part. `layer` None: outside the layers."""

    name: str
    kind: SiteKind
    layer: int | None
    pieces: tuple[Piece, ...]

    @property
    def whole(self) -> bool:
        """Whether it is a layer from end to end."""
        return self.kind == "layer"

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensors that it touches."""
        return tuple(piece.tensor for piece in self.pieces)

    def tensors_in(self, info: CheckpointInfo) -> tuple[str, ...]:
        """Their names in either checkpoint: the head may be the embedding's matrix in one and its own in the other."""
        return (_head(info),) if self.kind == "head" else self.tensors

    def within(self, other: Site) -> bool:
        """Whether all of it is in the other one, or shares something with it."""
        if self == other:
            return True
        if self.layer is None or self.layer != other.layer:
            return False
        if self.whole or other.whole:
            return True
        return any(_overlap(a, b) for a in self.pieces for b in other.pieces)


def sites_of(info: CheckpointInfo, layers: Collection[int] | None = None) -> list[Site]:
    """Every part of a checkpoint of a known layout, in the model's order; `layers`: of these only, and none outside."""
    by_layer: dict[int, list[str]] = {}
    for name in sorted(info.tensors, key=natural_key):
        match = _IN_LAYER.fullmatch(name)
        if match is not None:
            by_layer.setdefault(int(match["layer"]), []).append(name)
    found: list[Site] = []
    if layers is None:
        found.append(Site("embed_tokens", "embedding", None, (Piece(EMBEDDING),)))
    for layer, names in sorted(by_layer.items()):
        if layers is not None and layer not in layers:
            continue
        found.append(Site(f"layers.{layer}", "layer", layer, tuple(map(Piece, names))))
        found += _parts(layer, names)
        found += _head_groups(info, layer, set(names))
    if layers is None:
        found.append(Site("norm", "norm", None, (Piece(NORM),)))
        found.append(Site("lm_head", "head", None, (Piece(_head(info)),)))
    return found


def _head(info: CheckpointInfo) -> str:
    return EMBEDDING if info.tied else HEAD


def _parts(layer: int, names: list[str]) -> Iterator[Site]:
    """Modules, norms and experts."""
    modules: dict[str, list[str]] = {}
    for name in names:
        expert = _EXPERT.fullmatch(name)
        modules.setdefault(expert["module"] if expert else name.rpartition(".")[0], []).append(name)
    for module, own in modules.items():
        short = module.removeprefix("model.")
        kind: SiteKind = "module"
        if _EXPERT.fullmatch(own[0]):
            kind = "expert"
        elif short.endswith("norm"):
            kind = "norm"
        yield Site(short, kind, layer, tuple(map(Piece, own)))


def _head_groups(info: CheckpointInfo, layer: int, names: set[str]) -> Iterator[Site]:
    """Heads that share keys and values; none where a layer has one group only."""
    layout = LAYOUTS[info.architecture]
    config: dict[str, Any] = info.config
    heads = int(config["num_attention_heads"])
    groups = int(config.get("num_key_value_heads") or layout.kv_heads or heads)
    size = int(config.get("head_dim") or layout.head_dim or info.hidden_size // heads)
    prefix = f"model.layers.{layer}.self_attn."
    if f"{prefix}o_proj.weight" not in names or groups < 2:
        return
    each = heads // groups
    if info.tensors[f"{prefix}o_proj.weight"].shape[1] != heads * size:
        return  # heads were cut out of this layer
    for group in range(groups):
        query = (group * each * size, (group + 1) * each * size)
        own = (group * size, (group + 1) * size)
        rows = {"q_proj": [query], "k_proj": [own], "v_proj": [own]}
        if layout.fused:
            keys, values = heads * size, (heads + groups) * size
            rows = {"qkv_proj": [query, (keys + own[0], keys + own[1]), (values + own[0], values + own[1])]}
        pieces = [
            Piece(f"{prefix}{module}.{part}", 0, *bounds)
            for module, ranges in rows.items()
            for part in ("weight", "bias")
            if f"{prefix}{module}.{part}" in names
            for bounds in ranges
        ]
        pieces.append(Piece(f"{prefix}o_proj.weight", 1, *query))
        yield Site(f"layers.{layer}.self_attn.heads.{group}", "heads", layer, tuple(pieces))


def _overlap(first: Piece, second: Piece) -> bool:
    if first.tensor != second.tensor:
        return False
    if first.dim is None or second.dim is None or first.dim != second.dim:
        return True
    return first.start < second.stop and second.start < first.stop


@dataclass(frozen=True)
class Scope:
    """Parts that were asked for: `chosen` ones differ, `unchanged` is how many are the reference's own. `others` parts
    of the same layers differ and are of other kinds."""

    chosen: tuple[Site, ...] = ()
    unchanged: int = 0
    others: int = 0


def scope_of(sites: Sequence[Site], changed: Sequence[Site], levels: Collection[SiteLevel]) -> Scope:
    """Of all parts of the layers asked for (`sites`), and those of them that differ."""
    chosen = tuple(site for site in changed if _asked(site, levels))
    unchanged = sum(_asked(site, levels) for site in sites) - len(chosen)
    return Scope(chosen, unchanged, len(changed) - len(chosen))


def _asked(site: Site, levels: Collection[SiteLevel]) -> bool:
    return site.layer is None or site.kind in levels
