"""Deeper and wider models against transformers: the same function where it must be kept, else the hand-built one."""

import copy

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode
from app.models.checkpoint import inspect
from tests.support.checked import checked
from tests.support.pruning import operate, rewrite, weights
from tests.support.quantizing import divergence
from tests.support.refusals import refusal_of
from workers.surgery.channels import Channels

TOKENS = torch.randint(2, 300, (2, 40), generator=torch.Generator().manual_seed(5))
MODELS = ["llama", "qwen2", "gemma2", "granite"]


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@torch.no_grad()
def logits(model):
    return model(TOKENS).logits


def stacked(folder, order):
    """transformers' model with its own layers put together anew."""
    model = load(folder)
    layers = [copy.deepcopy(model.model.layers[layer]) for layer in order]
    for number, layer in enumerate(layers):
        layer.self_attn.layer_idx = number
    model.model.layers = nn.ModuleList(layers)
    model.config.num_hidden_layers = len(order)
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = [model.config.layer_types[layer] for layer in order]
    return model


@pytest.mark.parametrize("model", [*MODELS, "mixtral"])
def test_an_inserted_identity_changes_no_logit(tiny, store, model):
    with operate(tiny(model), store, {"type": "extend.identity"}) as modified:
        info = inspect(modified.path)
        found = logits(load(modified.path))
    assert info.layers == 6
    assert info.parameters > inspect(tiny(model)).parameters
    assert torch.equal(found, logits(load(tiny(model))))


def with_vectors(folder, seed=3):
    """Norms that are not all 1 and biases that are not 0, as trained models have them."""

    def change(tensors):
        draw = torch.Generator().manual_seed(seed)
        for tensor in tensors.values():
            if tensor.ndim == 1:
                tensor.add_(torch.randn(tensor.shape, generator=draw) / 4)

    return rewrite(folder, change)


def test_what_an_inserted_layer_adds_by_its_biases_is_nothing_too(copy, store):
    folder = with_vectors(copy("llama", attention_bias=True, mlp_bias=True))
    with operate(folder, store, {"type": "extend.identity"}) as modified:
        tensors = weights(modified.path)
        assert torch.equal(logits(load(modified.path)), logits(load(folder)))
    for name in ("self_attn.o_proj.bias", "mlp.down_proj.bias"):
        kept, added = (tensors[f"model.layers.{layer}.{name}"] for layer in (0, 1))
        assert bool(kept.all())
        assert not bool(added.any())


@pytest.mark.parametrize("model", MODELS)
def test_a_repeated_run_is_the_same_layers_twice(tiny, store, model):
    with operate(tiny(model), store, {"type": "extend.duplicate", "layers": [1, 2]}) as modified:
        assert inspect(modified.path).layers == 5
        assert modified.manifest.steps[0].figures == {"layers": 5.0}
        found = logits(load(modified.path))
    torch.testing.assert_close(found, logits(stacked(tiny(model), [0, 1, 2, 1, 2])), rtol=1e-5, atol=1e-5)


def test_what_a_layer_attends_to_goes_with_it(tiny, store):
    with operate(tiny("gemma2"), store, {"type": "extend.duplicate", "layers": [1]}) as modified:
        kinds = inspect(modified.path).config["layer_types"]
    assert kinds == ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]


@pytest.mark.parametrize(("model", "weight"), [*((model, 0.25) for model in MODELS), ("llama", 0.0), ("llama", 1.0)])
def test_an_interpolated_layer_lies_between_its_neighbours(tiny, store, model, weight):
    before = weights(tiny(model))
    with operate(tiny(model), store, {"type": "extend.interpolate", "layers": [0], "weight": weight}) as modified:
        after = weights(modified.path)
        expected = stacked(tiny(model), [0, 0, 1, 2])
        with torch.no_grad():
            for own, following in zip(
                expected.model.layers[1].parameters(), load(tiny(model)).model.layers[1].parameters(), strict=True
            ):
                own.copy_(torch.lerp(own, following, weight).bfloat16())
        torch.testing.assert_close(logits(load(modified.path)), logits(expected), rtol=1e-4, atol=1e-4)
    for name in ("self_attn.k_proj.weight", "mlp.up_proj.weight", "input_layernorm.weight"):
        first, second = (before[f"model.layers.{layer}.{name}"].double() for layer in (0, 1))
        mixed = ((1 - weight) * first + weight * second).to(torch.bfloat16)
        torch.testing.assert_close(after[f"model.layers.1.{name}"], mixed, rtol=1e-2, atol=1e-4)
        assert torch.equal(after[f"model.layers.2.{name}"], before[f"model.layers.1.{name}"])


@pytest.mark.parametrize("model", ["llama", "gemma2"])
def test_norms_and_biases_lie_between_too(copy, store, model):
    folder = with_vectors(copy(model, attention_bias=True))
    before = weights(folder)
    with operate(folder, store, {"type": "extend.interpolate", "layers": [1], "weight": 0.25}) as modified:
        after = weights(modified.path)
    vectors = [name for name, tensor in before.items() if ".layers.1." in name and tensor.ndim == 1]
    assert {name.rpartition(".")[2] for name in vectors} == {"weight", "bias"}
    for name in vectors:
        first, second = before[name].double(), before[name.replace(".1.", ".2.")].double()
        expected = (0.75 * first + 0.25 * second).to(torch.bfloat16)
        torch.testing.assert_close(after[name.replace(".1.", ".2.")], expected, rtol=8e-3, atol=1e-4)
        assert not torch.equal(expected, before[name])


@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        *((model, sizes) for model in ("llama", "gemma2", "granite") for sizes in ({"heads": 2}, {"channels": 2})),
        ("llama", {"heads": 4, "channels": 3}),
        ("qwen2", {"channels": 2}),
    ],
)
def test_width_keeps_the_function(tiny, store, model, sizes):
    with operate(tiny(model), store, {"type": "extend.width"} | sizes) as modified:
        config = inspect(modified.path).config
        found = logits(load(modified.path))
    assert config["num_attention_heads"] == 2 * sizes.get("heads", 1)
    assert config["num_key_value_heads"] == sizes.get("heads", 1)
    assert config["intermediate_size"] == 128 * sizes.get("channels", 1)
    expected = logits(load(tiny(model)))
    # thirds are rounded to bf16, halves are exact
    tolerance = 0.05 if sizes.get("channels") == 3 else 1e-4
    assert float((found - expected).abs().max()) < tolerance * float(expected.abs().max())


def test_keys_and_values_of_several_groups_are_widened_with_their_queries(tiny, store):
    """Four query heads in two groups: a copy must go on reading the keys and values of its own group."""
    folder = tiny("llama", num_attention_heads=4, num_key_value_heads=2)
    with operate(folder, store, {"type": "extend.width", "heads": 2}) as modified:
        config = inspect(modified.path).config
        found = logits(load(modified.path))
    assert (config["num_attention_heads"], config["num_key_value_heads"]) == (8, 4)
    torch.testing.assert_close(found, logits(load(folder)), rtol=1e-4, atol=1e-4)


def test_noise_breaks_the_symmetry_of_copies_and_is_seeded(tiny, store):
    step = {"type": "extend.width", "channels": 2, "noise": 0.1}
    name = "model.layers.0.mlp.up_proj.weight"
    with operate(tiny(), store, step) as modified:
        first = weights(modified.path)[name]
    with operate(tiny(), store, step | {"seed": 1}) as modified:
        other = weights(modified.path)[name]
    before = weights(tiny())[name]
    assert torch.equal(first[::2], before)
    assert not torch.equal(first[1::2], before)
    assert not torch.equal(first[1::2], other[1::2])
    spread = float((first[1::2].float() - before.float()).std() / before.float().std())
    assert 0.08 < spread < 0.12


def test_nothing_lies_between_a_dense_layer_and_one_of_experts(tiny, store):
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "mlp_only_layers": [0]}
    folder = tiny("llama", model_type="qwen3_moe", num_hidden_layers=4, **experts)
    between = {"type": "extend.interpolate"}
    for fields, pointer in (({}, "/r/0"), ({"layers": [1, 0]}, "/r/0/layers")):
        error = refusal_of(checked, folder, between | fields)
        assert (error.code, error.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, pointer)
        assert "layers 0 and 1 have different tensors" in error.detail
        assert error.hint.endswith("1, 2"), "layers whose next one is of the same kind"
    with operate(folder, store, between | {"layers": [1, 2]}) as modified:
        assert inspect(modified.path).config["mlp_only_layers"] == [0]
        assert bool(logits(load(modified.path)).isfinite().all())
    alone = tiny("llama", model_type="qwen3_moe", **(experts | {"mlp_only_layers": [1]}))
    assert refusal_of(checked, alone, between).hint.startswith("no layer")


def test_layers_of_scaled_channels_are_interpolated_by_what_they_stand_for(outliers, shared):
    source = outliers()
    awq, between = {"type": "quantize.awq", "bits": 8, "group_size": 32}, {"type": "extend.interpolate"}
    with operate(source, shared, between) as alone, operate(source, shared, awq, between) as behind:
        assert divergence(alone.path, behind.path) < 0.1 * divergence(alone.path, source)
        name = "model.layers.1.self_attn.q_proj.weight"
        meant = Channels.of(inspect(behind.path)).meaning(name, weights(behind.path)[name])
        expected = weights(alone.path)[name].float()
    assert float((meant - expected).norm() / expected.norm()) < 0.02


@pytest.mark.parametrize(
    ("model", "step", "pointer"),
    [
        ("llama", {"type": "extend.duplicate", "layers": [0, 2]}, "/layers"),
        ("llama", {"type": "extend.duplicate", "layers": [3]}, "/layers/0"),
        ("llama", {"type": "extend.interpolate", "layers": [2]}, "/layers"),
        ("llama", {"type": "extend.identity", "modules": ["mlp"]}, "/modules"),
        ("llama", {"type": "extend.width"}, ""),
        ("llama", {"type": "extend.width", "heads": 2, "layers": [0]}, "/layers"),
        ("llama", {"type": "extend.width", "heads": 3}, "/heads"),
        ("qwen2", {"type": "extend.width", "heads": 2}, "/heads"),
        ("mixtral", {"type": "extend.width", "heads": 2}, ""),
    ],
)
def test_what_cannot_be_extended_is_refused(tiny, model, step, pointer):
    error = refusal_of(checked, tiny(model), step)
    assert error.code in {ErrorCode.RECIPE_NOT_APPLICABLE, ErrorCode.UNKNOWN_MODULE}
    assert error.pointer == f"/r/0{pointer}"
    assert error.hint
