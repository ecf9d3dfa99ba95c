"""Any two steps, in either order: the result is a model, or the second is refused before any work."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from transformers import AutoModelForCausalLM

from app.contracts.errors import HemostatError
from app.contracts.recipe import Calibrated, Recipe
from app.models.checkpoint import inspect
from app.models.steps import check_recipe
from workers.surgery.calibration_text import CalibrationText
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
# One of each kind: weights alone, with run time, packed, corrected, fewer, smaller, more, configuration alone.
STEPS: list[dict[str, Any]] = [
    {"type": "quantize.rtn", "bits": 4, "group_size": 32},
    {"type": "quantize.smoothquant"},
    {"type": "quantize.fp8", "activations": "dynamic"},
    {"type": "quantize.gptq", "bits": 4, "group_size": 32, "form": "packed"},
    {"type": "prune.sparsegpt", "pattern": "2:4"},
    {"type": "prune.layers", "count": 1},
    {"type": "prune.heads", "count": 2},
    {"type": "extend.identity", "layers": [0]},
    {"type": "context.ntk", "factor": 2},
]


def text(_: Calibrated) -> CalibrationText:
    tokens_NL = torch.randint(2, 300, (4, 16), generator=torch.Generator().manual_seed(0))
    return CalibrationText(tokens_NL, "0" * 64, documents=4, asked=4)


@pytest.mark.parametrize("first", STEPS, ids=lambda step: step["type"])
def test_any_two_steps_make_a_model_or_are_refused_before_any_work(
    tiny: Callable[..., Path], tmp_path: Path, first: dict[str, Any]
) -> None:
    info = inspect(tiny(num_attention_heads=4, num_key_value_heads=2))
    store = CheckpointStore(tmp_path / "store", 10**9)
    done = 0
    for second in STEPS:
        recipe = RECIPE.validate_python([first, second])
        try:
            expected = check_recipe(info, recipe, pointer="/r")
        except HemostatError as error:
            assert error.pointer.startswith("/r/1")
            assert error.hint
            continue
        done += 1
        with apply(info, recipe, store=store, calibration=text) as modified:
            found = inspect(modified.path)
            assert (found.layers, found.architecture) == (expected.layers, expected.architecture)
            assert found.scheme == expected.scheme
            if found.quantization is None:
                assert {name: one.shape for name, one in found.tensors.items()} == {
                    name: one.shape for name, one in expected.tensors.items() if name != "lm_head.weight"
                }
                model = AutoModelForCausalLM.from_pretrained(modified.path, dtype=torch.bfloat16)
                with torch.no_grad():
                    assert bool(torch.isfinite(model(torch.arange(2, 20)[None]).logits).all())
    assert done >= (1 if first.get("form") == "packed" else 5)
