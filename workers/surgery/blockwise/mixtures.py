"""Mixtures of experts as transformers holds them, read from a checkpoint that has each expert's matrices by themselves.

transformers 5 keeps the experts of a layer in two tensors: `gate_up_proj` (E, 2·I, D), each expert's gate over its up
projection, and `down_proj` (E, D, I). Names: E experts, I intermediate size, D hidden size.
"""

from __future__ import annotations

import re

import torch

from app.models.checkpoint import CheckpointInfo
from app.models.shapes import LAYOUTS
from workers.surgery.blockwise.skeleton import Read

_MODULE = re.compile(r"(?P<layer>model\.layers\.\d+\.)mlp\.(?P<path>gate\.weight|experts\.(?:gate_up_proj|down_proj))")
# Where a layer's mixture is, and its gate, up and down projections.
_NAMES = {
    "mixtral": ("block_sparse_moe", "w1", "w3", "w2"),
    "qwen2_moe": ("mlp", "gate_proj", "up_proj", "down_proj"),
    "qwen3_moe": ("mlp", "gate_proj", "up_proj", "down_proj"),
}


def fused(info: CheckpointInfo, read: Read) -> Read:
    """A reader by transformers' names over one by the checkpoint's; of a dense model, the same one."""
    layout = LAYOUTS.get(info.architecture)
    if layout is None or layout.mixture is None:
        return read
    module, gate, up, down = _NAMES[layout.mixture]

    def read_fused(name: str) -> torch.Tensor:
        match = _MODULE.fullmatch(name)
        if match is None:
            return read(name)
        prefix = f"{match['layer']}{module}."
        if match["path"] == "gate.weight":
            return read(f"{prefix}gate.weight")
        numbers = range(_count(info, f"{prefix}experts."))
        if match["path"].endswith("gate_up_proj"):
            both = ([read(f"{prefix}experts.{number}.{one}.weight") for one in (gate, up)] for number in numbers)
            return torch.stack([torch.cat(pair) for pair in both])
        return torch.stack([read(f"{prefix}experts.{number}.{down}.weight") for number in numbers])

    return read_fused


def _count(info: CheckpointInfo, prefix: str) -> int:
    """Experts of a layer, from the names of its tensors."""
    return len({name.removeprefix(prefix).partition(".")[0] for name in info.tensors if name.startswith(prefix)})
