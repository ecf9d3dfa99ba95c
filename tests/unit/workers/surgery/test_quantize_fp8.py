"""`quantize.fp8`: weights by the format's definition; simulated with activations, the same weights and a section."""

import numpy as np
import pytest
import torch

from app.models.checkpoint import inspect
from app.models.simulation import section_in
from app.models.steps import quantize as rules
from tests.support import pruning
from tests.support.compressor import inputs
from tests.support.e4m3 import numbers
from tests.support.quantizing import divergence, operate, tensors, text
from workers.surgery.quantize_fp8 import quantize

FP8 = {"type": "quantize.fp8"}
DYNAMIC, STATIC = FP8 | {"activations": "dynamic"}, FP8 | {"activations": "static"}


def test_each_weight_goes_to_the_nearest_number_of_the_format():
    weight = torch.randn(16, 96, generator=torch.Generator().manual_seed(0)) * 0.03
    weight[3] = 0
    made, scale = quantize(weight)
    grid = np.concatenate([-numbers(), numbers()])
    for row in range(16):
        ratio = weight[row].double().numpy() / scale[row].item()
        nearest = np.abs(np.clip(ratio, -448, 448)[:, None] - grid).min(1)
        moved = np.abs(made[row].double().numpy() / scale[row].item() - np.clip(ratio, -448, 448))
        assert np.allclose(moved, nearest, atol=1e-4)
    assert torch.equal(scale.to(torch.bfloat16).float(), scale)
    assert bool((made[3] == 0).all())


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "mixtral"])
def test_models_stay_near(tiny, store, kind):
    with operate(tiny(kind), store, {"type": "quantize.fp8"}) as made:
        assert divergence(tiny(kind), made.path) < 0.01
        assert 0.01 < (made.manifest.reconstruction_error or 0) < 0.04
        before, after = tensors(tiny(kind)), tensors(made.path)
    for name, weight in before.items():
        if name.endswith(("_proj.weight", ".w1.weight", ".w2.weight", ".w3.weight")):
            assert torch.equal(after[name], quantize(weight)[0].to(torch.bfloat16)), name
        else:
            assert torch.equal(after[name], weight), name


@pytest.mark.parametrize("step", [FP8, DYNAMIC])
def test_no_text_is_read_where_none_decides(tiny, store, step):
    with pruning.operate(tiny(), store, step, calibration=None) as made:
        assert made.manifest.steps[0].calibration_tokens is None


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_activations_leave_the_weights_and_what_they_take_as_they_are_without(tiny, store, kind):
    with operate(tiny(kind), store, DYNAMIC) as made, operate(tiny(kind), store, FP8) as weights:
        one, other = tensors(made.path), tensors(weights.path)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert made.manifest.tensors == weights.manifest.tensors
        assert made.manifest.model_bits_per_weight == weights.manifest.model_bits_per_weight
        assert made.manifest.scheme == "simulated"
        assert made.manifest.steps[0].figures == {"activation_bits": 8.0, "linear_layers": 21.0}
        section, none = (section_in(inspect(one.path).config) for one in (made, weights))
    assert none is None
    (entry,) = section.activations
    assert (entry.kind, entry.bits, entry.dynamic, entry.scales) == ("float", 8, True, None)
    assert {f"{module}.weight" for module in entry.modules} == {one.name for one in made.manifest.tensors}


def test_weights_alone_are_changed_as_before_with_their_neighbours(tiny, store):
    """One weight at a time, in one stage with the step beside it; with activations a stage of its own."""
    prune = {"type": "prune.magnitude", "sparsity": 0.3}
    with operate(tiny(), store, prune, FP8) as made, operate(tiny(), store, prune, DYNAMIC) as other:
        assert [record.types for record in made.manifest.steps] == [("prune.magnitude", "quantize.fp8")]
        assert [record.types for record in other.manifest.steps] == [("prune.magnitude",), ("quantize.fp8",)]
        one, two = tensors(made.path), tensors(other.path)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_static_scales_are_those_that_are_packed(tiny, store, monkeypatch):
    monkeypatch.setattr(rules, "served_devices", lambda: ("cuda",))  # a CPU has no kernel of them
    seen, some = text(4, 64), STATIC | {"layers": [0, 2]}
    with operate(tiny(), store, some, seen=seen) as made:
        section = section_in(inspect(made.path).config)
        assert made.manifest.steps[0].calibration_tokens == 4 * 64
    with operate(tiny(), store, some | {"form": "packed"}, seen=seen) as packed:
        found = tensors(packed.path)
    (entry,) = section.activations
    assert len(entry.scales) == 14
    entering = inputs(tiny(), seen.tokens_NL)
    for module, (scale, zero) in entry.scales.items():
        assert (scale, zero) == (pytest.approx(found[f"{module}.input_scale"].item(), rel=1e-6), 0)
        assert scale * 448 == pytest.approx(float(entering[module].abs().max()), rel=0.03), module  # bf16's walk
