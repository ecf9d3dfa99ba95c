"""Mitigations of a model whose activations have no end: refused by name, whichever layer it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import inspect
from app.recipes.recipe import Recipe
from tests.support.copies import copier
from tests.unit.workers.surgery.test_walking import edit, text
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
STEPS: list[dict[str, Any]] = [
    {"type": "prune.gradient", "sparsity": 0.5, "passes": 1, "reconstruct_epochs": 1},
    {"type": "quantize.dynamic", "bits": 4, "group_size": 32},
    {"type": "norm.tweak", "steps": 2},
    {"type": "repair.lowrank", "rank": 4, "block_epochs": 0, "distill_steps": 0},
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step["type"])
def test_activations_without_end_are_refused(tiny: Callable[..., Path], tmp_path: Path, step: dict[str, Any]) -> None:
    folder = copier(tiny, tmp_path)()
    edit(folder, model__layers__2__post_attention_layernorm__weight=torch.full((64,), 3e38, dtype=torch.bfloat16))
    store = CheckpointStore(tmp_path / "store", 10**9)
    with pytest.raises(HemostatError) as caught:
        apply(inspect(folder), RECIPE.validate_python([step]), store=store, calibration=text)
    assert caught.value.code == ErrorCode.ACTIVATIONS_NOT_FINITE
    assert caught.value.pointer == "/candidate/recipe/0"
    assert caught.value.hint
    assert store.keys == ()
