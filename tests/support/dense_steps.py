"""Every type of step that a dense model takes, as it does all that it can on a tiny one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import TypeAdapter

from app.models.checkpoint import CheckpointInfo
from app.recipes.base import Calibrated, Step
from app.recipes.merge import AdapterLora, MergeLinear
from app.recipes.recipe import STEPS, Recipe
from tests.support.steps import example
from workers.mitigation.repair.adapter import export
from workers.mitigation.repair.closed_form import Factors
from workers.surgery.calibration_text import CalibrationText

RECIPE: Final[TypeAdapter[Recipe]] = TypeAdapter(Recipe)
_HALF: Final = {"sparsity": 0.5}
# Where an example would not do all that a type can.
_MORE: Final[dict[str, dict[str, Any]]] = {
    "quantize.nf4": {"group_size": 32},
    "quantize.activations": {"bits": 8, "dynamic": False},
    "quantize.kv_cache": {"k_bits": 4, "v_bits": 3},
    **dict.fromkeys(("prune.magnitude", "prune.wanda", "prune.sparsegpt"), _HALF | {"allocation": "owl"}),
    "prune.ria": {"pattern": "2:4"},
    "prune.gradient": _HALF | {"passes": 1, "reconstruct_epochs": 1},
    "norm.tweak": {"steps": 1},
    "quantize.dynamic": {"bits": 4, "group_size": 32, "block_epochs": 1},
    "repair.lowrank": {"rank": 4, "block_epochs": 1, "distill_steps": 1},
}
_COARSE: Final = {"type": "quantize.rtn", "bits": 3, "group_size": 32}
# What a step needs before it, to have something to do.
_BEFORE: Final[dict[str, dict[str, Any]]] = {
    "norm.drop": {"type": "norm.scale", "shift": 0.5},
    "norm.tweak": _COARSE,
    "repair.lowrank": _COARSE,
}
DENSE: Final = [kind for kind in STEPS if kind not in ("moe.topk", "moe.router")]
# Of the tiny model, where `example` drops heads and layers.
HEADS: Final = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}


def text(_: Calibrated) -> CalibrationText:
    """Eight windows of random tokens."""
    tokens_NL = torch.randint(2, 300, (8, 16), generator=torch.Generator().manual_seed(0))
    return CalibrationText(tokens_NL, "0" * 64, documents=8, asked=8)


def case(
    info: CheckpointInfo, type_: str, *, other: Path, scratch: Path
) -> tuple[Recipe, Callable[[Step], Path | None]]:
    """A recipe for a model of `HEADS` that ends with the step, and what finds the folder that the step takes beside it.
    `other`: a model of the same shape."""
    name = "model.layers.1.mlp.up_proj.weight"
    outputs, inputs = info.tensors[name].shape
    factors = Factors(torch.ones(outputs, 1), torch.ones(1, inputs), torch.ones(1))
    export(scratch / "lora", {name: factors}, base="it")

    def others(step: Step) -> Path | None:
        if isinstance(step, AdapterLora):
            return scratch / "lora"
        return other if isinstance(step, MergeLinear) else None

    before = [_BEFORE[type_]] if type_ in _BEFORE else []
    step = {"type": type_} | _MORE[type_] if type_ in _MORE else example(type_)
    return RECIPE.validate_python([*before, step]), others
