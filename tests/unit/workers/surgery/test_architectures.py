"""Every type of step on other architectures than Llama's: a model that computes, as large as was told beforehand."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from app.models.checkpoint import inspect
from app.models.steps import check_recipe
from tests.support.dense_steps import DENSE, HEADS, case, text
from tests.support.second_device import second_device
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

# The function stays, or what is done is done by the engine alone.
SAME = {"quantize.activations", "quantize.kv_cache", "extend.identity", "extend.width"}


@torch.no_grad()
def logits(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    return model(torch.arange(2, 20)[None]).logits


def given(tiny, tmp_path, kind, type_):
    """A checkpoint, a recipe with the step, and what finds the folder that the step takes beside it."""
    info = inspect(tiny(kind, **HEADS))
    return info, *case(info, type_, other=tiny(kind, seed=9, **HEADS), scratch=tmp_path)


@pytest.mark.parametrize("kind", ["qwen2", "gemma2"])
@pytest.mark.parametrize("type_", DENSE)
def test_a_step_makes_a_model_that_computes(tiny, tmp_path, kind, type_):
    info, recipe, others = given(tiny, tmp_path, kind, type_)
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
    info, recipe, others = given(tiny, tmp_path, "gemma2", type_)
    stores = [CheckpointStore(tmp_path / name, 10**9) for name in ("host", "second")]
    here = apply(info, recipe, device="cpu", store=stores[0], calibration=text, others=others)
    with second_device() as device:
        there = apply(info, recipe, device=device, store=stores[1], calibration=text, others=others)
    assert there.fingerprint == here.fingerprint
