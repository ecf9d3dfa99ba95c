"""Every type of step on other architectures than Llama's: a model that computes, as large as was told beforehand."""

import pytest
import torch
from pydantic import TypeAdapter
from transformers import AutoModelForCausalLM

from app.models.checkpoint import inspect
from app.models.steps import check_recipe
from app.recipes.merge import AdapterLora, MergeLinear
from app.recipes.recipe import STEPS, Recipe
from tests.support.second_device import second_device
from tests.support.steps import example
from workers.mitigation.repair.adapter import export
from workers.mitigation.repair.closed_form import Factors
from workers.surgery.calibration_text import CalibrationText
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

RECIPE = TypeAdapter(Recipe)
HALF = {"sparsity": 0.5}
# Where an example would not do all that a type can.
MORE = {
    "quantize.nf4": {"group_size": 32},
    "quantize.activations": {"bits": 8, "dynamic": False},
    "quantize.kv_cache": {"k_bits": 4, "v_bits": 3},
    **dict.fromkeys(("prune.magnitude", "prune.wanda", "prune.sparsegpt"), HALF | {"allocation": "owl"}),
    "prune.ria": {"pattern": "2:4"},
    "prune.gradient": HALF | {"passes": 1, "reconstruct_epochs": 1},
    "norm.tweak": {"steps": 1},
    "quantize.dynamic": {"bits": 4, "group_size": 32, "block_epochs": 1},
    "repair.lowrank": {"rank": 4, "block_epochs": 1, "distill_steps": 1},
}
COARSE = {"type": "quantize.rtn", "bits": 3, "group_size": 32}
# What a step needs before it, to have something to do.
BEFORE = {"norm.drop": {"type": "norm.scale", "shift": 0.5}, "norm.tweak": COARSE, "repair.lowrank": COARSE}
# The function stays, or what is done is done by the engine alone.
SAME = {"quantize.activations", "quantize.kv_cache", "extend.identity", "extend.width"}
OF_MIXTURES = {"moe.topk", "moe.router"}
DENSE = [kind for kind in STEPS if kind not in OF_MIXTURES]
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2}


def text(_):
    tokens_NL = torch.randint(2, 300, (8, 16), generator=torch.Generator().manual_seed(0))
    return CalibrationText(tokens_NL, "0" * 64, documents=8, asked=8)


@torch.no_grad()
def logits(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    return model(torch.arange(2, 20)[None]).logits


def case(tiny, tmp_path, kind, type_):
    """A checkpoint, a recipe with the step, and what finds the folder that the step takes beside it."""
    info, name = inspect(tiny(kind, **HEADS)), "model.layers.1.mlp.up_proj.weight"
    outputs, inputs = info.tensors[name].shape
    export(tmp_path / "lora", {name: Factors(torch.ones(outputs, 1), torch.ones(1, inputs), torch.ones(1))}, base="it")

    def others(step):
        if isinstance(step, AdapterLora):
            return tmp_path / "lora"
        return tiny(kind, seed=9, **HEADS) if isinstance(step, MergeLinear) else None

    before = [BEFORE[type_]] if type_ in BEFORE else []
    step = {"type": type_} | MORE[type_] if type_ in MORE else example(type_)
    return info, RECIPE.validate_python([*before, step]), others


@pytest.mark.parametrize("kind", ["qwen2", "gemma2"])
@pytest.mark.parametrize("type_", DENSE)
def test_a_step_makes_a_model_that_computes(tiny, tmp_path, kind, type_):
    info, recipe, others = case(tiny, tmp_path, kind, type_)
    store = CheckpointStore(tmp_path / "store", 10**9)
    expected = check_recipe(info, recipe, pointer="/r")
    with apply(info, recipe[:-1], device="cpu", store=store) as wounded:
        untouched = logits(wounded.path)
    with apply(info, recipe, device="cpu", store=store, calibration=text, others=others) as modified:
        found, record = inspect(modified.path), modified.manifest.steps[-1]
        touched = logits(modified.path)
    assert (found.architecture, found.layers) == (expected.architecture, expected.layers)
    assert found.max_position == expected.max_position
    one, other = (
        {name: tensor.shape for name, tensor in of.tensors.items() if name != "lm_head.weight"}
        for of in (found, expected)
    )
    assert one == other
    assert bool(torch.isfinite(touched).all())
    assert type_ in record.types
    if type_ in SAME:
        torch.testing.assert_close(touched, untouched, rtol=0.02, atol=0.02)
    else:
        assert not torch.equal(touched, untouched)


@pytest.mark.parametrize("type_", DENSE)
def test_a_step_computes_on_the_device_and_gives_the_same_weights_there(tiny, tmp_path, type_):
    # Gemma-2's attention is plain products. torch has a fused attention for a CPU alone, which rounds at other places.
    info, recipe, others = case(tiny, tmp_path, "gemma2", type_)
    stores = [CheckpointStore(tmp_path / name, 10**9) for name in ("host", "second")]
    here = apply(info, recipe, device="cpu", store=stores[0], calibration=text, others=others)
    with second_device() as device:
        there = apply(info, recipe, device=device, store=stores[1], calibration=text, others=others)
    assert there.fingerprint == here.fingerprint
