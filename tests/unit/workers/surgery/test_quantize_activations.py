"""`quantize.activations`: weights untouched, a section in config.json, static grids from the text."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from app.models.checkpoint import inspect
from app.models.simulation import section_in
from tests.support.pruning import load
from tests.support.quantizing import operate, text
from tests.support.quantizing import tensors as weights

A8 = {"type": "quantize.activations", "bits": 8}
TOKENS = text(4, 32).tokens_NL
RTN = {"type": "quantize.rtn", "bits": 8, "group_size": None, "symmetric": True}


def section(modified):
    return section_in(inspect(modified.path).config)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_weights_stay_and_no_tensor_is_listed_as_changed(tiny, store, kind):
    with operate(tiny(kind), store, A8) as modified:
        before, after = weights(tiny(kind)), weights(modified.path)
        assert before.keys() == after.keys()
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
        manifest = modified.manifest
        assert (manifest.tensors, manifest.scheme) == ((), "simulated")
        assert manifest.steps[0].figures == {"activation_bits": 8.0, "linear_layers": 21.0}
        assert manifest.steps[0].calibration_tokens is None, "grids of each token need no text"
        with torch.no_grad():  # transformers loads it and simulates nothing
            ours, theirs = (
                AutoModelForCausalLM.from_pretrained(one)(TOKENS).logits for one in (modified.path, tiny(kind))
            )
        assert torch.equal(ours, theirs)
        entry = section(modified).activations[0]
        assert (entry.bits, entry.dynamic, entry.symmetric, entry.scales) == (8, True, True, None)
        assert len(entry.modules) == 21


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_static_grids_hold_what_transformers_sees_on_the_text(tiny, store, kind, symmetric):
    step = A8 | {"dynamic": False, "symmetric": symmetric, "layers": [0, 2]}
    with operate(tiny(kind), store, step, seen=text(4, 32)) as modified:
        (entry,) = section(modified).activations
    model = load(tiny(kind))
    seen = {}

    def look(name):
        def hook(_, args):
            seen[name] = (float(args[0].min()), float(args[0].max()))

        return hook

    for name, module in model.named_modules():
        if name in entry.modules:
            module.register_forward_pre_hook(look(name))
    with torch.no_grad():
        model(input_ids=TOKENS)
    assert seen.keys() == entry.scales.keys()
    assert {name.split(".")[2] for name in seen} == {"0", "2"}
    for name, (low, high) in seen.items():
        scale, zero = entry.scales[name]
        if symmetric:
            assert [scale, zero] == pytest.approx([max(-low, high) / 127, 0])
        else:
            assert scale == pytest.approx((max(high, 0) - min(low, 0)) / 255)
            assert zero == pytest.approx(-min(low, 0) / scale, abs=0.5001)


def test_with_weights_in_either_order_it_is_the_same_checkpoint(tiny, store):
    with operate(tiny("llama"), store, RTN, A8) as one, operate(tiny("llama"), store, A8, RTN) as other:
        assert one.fingerprint == other.fingerprint
        assert len(one.manifest.tensors) == len(other.manifest.tensors) == 21
        assert all(change.bits_per_weight < 9 for change in one.manifest.tensors)


def test_static_grids_look_at_the_weights_as_the_steps_before_left_them(tiny, store):
    static, coarse = A8 | {"dynamic": False}, RTN | {"bits": 3}
    with operate(tiny("llama"), store, coarse, static) as one, operate(tiny("llama"), store, static) as other:
        first, second = section(one).activations[0].scales, section(other).activations[0].scales
    assert first["model.layers.0.self_attn.q_proj"] == second["model.layers.0.self_attn.q_proj"]
    assert first["model.layers.1.self_attn.q_proj"] != second["model.layers.1.self_attn.q_proj"]


def test_a_step_that_looks_at_text_says_that_nothing_was_simulated_there(tiny, store):
    static = A8 | {"dynamic": False}
    with operate(tiny("llama"), store, A8, static) as one, operate(tiny("llama"), store, static) as other:
        assert one.manifest.steps[1].warnings[0].code == "without_runtime_quantization"
        assert other.manifest.steps[0].warnings == ()
