"""Any two steps, in either order, and three in a row: the result is a model, or a step is refused before any work."""

import pytest
import torch
from pydantic import TypeAdapter
from transformers import AutoModelForCausalLM

from app.contracts.errors import HemostatError
from app.models.checkpoint import inspect
from app.models.steps import check_recipe
from app.models.steps.others import check_other
from app.recipes.merge import MergeLinear
from app.recipes.recipe import Recipe
from workers.surgery.calibration_text import CalibrationText
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

RECIPE = TypeAdapter(Recipe)
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
# One of each kind: weights alone, with run time, packed, corrected, fewer, smaller, more, configuration alone, of low
# rank, mixed with another model, norms, a temperature, and two mitigations.
STEPS = [
    {"type": "quantize.rtn", "bits": 4, "group_size": 32},
    {"type": "quantize.smoothquant"},
    {"type": "quantize.fp8", "activations": "dynamic"},
    {"type": "quantize.gptq", "bits": 4, "group_size": 32, "form": "packed"},
    {"type": "prune.sparsegpt", "pattern": "2:4"},
    {"type": "prune.layers", "count": 1},
    {"type": "prune.heads", "count": 2},
    {"type": "extend.identity", "layers": [0]},
    {"type": "context.ntk", "factor": 2},
    {"type": "lowrank.svd", "ratio": 0.3},
    {"type": "merge.linear", "other": "other", "weight": 0.3},
    {"type": "norm.scale", "factor": 1.1},
    {"type": "decode.temperature", "temperature": 1.5},
    {"type": "quantize.dynamic", "bits": 4, "group_size": 32, "block_epochs": 1},
    {"type": "repair.lowrank", "rank": 4, "block_epochs": 1, "distill_steps": 1},
]


def text(_):
    tokens_NL = torch.randint(2, 300, (4, 16), generator=torch.Generator().manual_seed(0))
    return CalibrationText(tokens_NL, "0" * 64, documents=4, asked=4)


def made_or_refused(tiny, store, *steps):
    """Whether the steps make a model, which is then held to what shapes foretold; else the last was refused."""
    info, recipe = inspect(tiny(**HEADS)), RECIPE.validate_python(steps)

    def other(step):
        return tiny(seed=9, **HEADS) if isinstance(step, MergeLinear) else None

    def beside(given, step, pointer):
        if (path := other(step)) is not None:
            check_other(step, given, path, pointer=pointer)

    try:
        expected = check_recipe(info, recipe, pointer="/r", beside=beside)
    except HemostatError as error:
        assert error.pointer.startswith(f"/r/{len(steps) - 1}")
        assert error.hint
        return False
    with apply(info, recipe, device="cpu", store=store, calibration=text, others=other) as modified:
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
    return True


@pytest.mark.parametrize("first", STEPS, ids=lambda step: step["type"])
def test_any_two_steps_make_a_model_or_are_refused_before_any_work(tiny, tmp_path, first):
    store = CheckpointStore(tmp_path / "store", 10**9)
    done = sum(made_or_refused(tiny, store, first, second) for second in STEPS)
    assert done >= (1 if first.get("form") == "packed" else 8)


def test_quantized_then_pruned_then_of_low_rank_is_a_model(tiny, tmp_path):
    store = CheckpointStore(tmp_path / "store", 10**9)
    steps = {step["type"]: step for step in STEPS}
    for low in (steps["lowrank.svd"], {"type": "lowrank.svdllm", "ratio": 0.3}):
        assert made_or_refused(tiny, store, steps["quantize.rtn"], steps["prune.sparsegpt"], low)
