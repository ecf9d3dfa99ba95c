"""Deeper and wider models against transformers: the same function where it must be kept, else the hand-built one."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import inspect
from app.models.steps import check_recipe
from app.recipes.recipe import Recipe
from tests.support.copies import Copy
from tests.support.outliers import with_outliers
from tests.support.pruning import rewrite
from tests.support.quantizing import divergence
from tests.support.quantizing import operate as quantized
from tests.support.tiny import make_checkpoint
from workers.surgery.channels import Channels
from workers.surgery.modified import Modified
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

Tiny = Callable[..., Path]
RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
TOKENS = torch.randint(2, 300, (2, 40), generator=torch.Generator().manual_seed(5))
MODELS = ["llama", "qwen2", "gemma2", "granite"]


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "store", 10**9)


def operate(folder: Path, store: CheckpointStore, *steps: dict[str, Any]) -> Modified:
    return apply(inspect(folder), RECIPE.validate_python(steps), store=store)


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(TOKENS).logits
    return found


def stacked(folder: Path, order: list[int]) -> Any:
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
def test_an_inserted_identity_changes_no_logit(tiny: Tiny, store: CheckpointStore, model: str) -> None:
    with operate(tiny(model), store, {"type": "extend.identity"}) as modified:
        info = inspect(modified.path)
        found = logits(load(modified.path))
    assert info.layers == 6
    assert info.parameters > inspect(tiny(model)).parameters
    assert torch.equal(found, logits(load(tiny(model))))


def with_vectors(folder: Path, seed: int = 3) -> Path:
    """Norms that are not all 1 and biases that are not 0, as trained models have them."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        draw = torch.Generator().manual_seed(seed)
        for tensor in tensors.values():
            if tensor.ndim == 1:
                tensor.add_(torch.randn(tensor.shape, generator=draw) / 4)

    return rewrite(folder, change)


def test_what_an_inserted_layer_adds_by_its_biases_is_nothing_too(copy: Copy, store: CheckpointStore) -> None:
    folder = with_vectors(copy("llama", attention_bias=True, mlp_bias=True))
    with operate(folder, store, {"type": "extend.identity"}) as modified:
        tensors = load_file(modified.path / "model.safetensors")
        assert torch.equal(logits(load(modified.path)), logits(load(folder)))
    for name in ("self_attn.o_proj.bias", "mlp.down_proj.bias"):
        kept, added = (tensors[f"model.layers.{layer}.{name}"] for layer in (0, 1))
        assert bool(kept.all())
        assert not bool(added.any())


@pytest.mark.parametrize("model", MODELS)
def test_a_repeated_run_is_the_same_layers_twice(tiny: Tiny, store: CheckpointStore, model: str) -> None:
    with operate(tiny(model), store, {"type": "extend.duplicate", "layers": [1, 2]}) as modified:
        assert inspect(modified.path).layers == 5
        assert modified.manifest.steps[0].figures == {"layers": 5.0}
        found = logits(load(modified.path))
    torch.testing.assert_close(found, logits(stacked(tiny(model), [0, 1, 2, 1, 2])), rtol=1e-5, atol=1e-5)


def test_what_a_layer_attends_to_goes_with_it(tiny: Tiny, store: CheckpointStore) -> None:
    with operate(tiny("gemma2"), store, {"type": "extend.duplicate", "layers": [1]}) as modified:
        kinds = inspect(modified.path).config["layer_types"]
    assert kinds == ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_an_interpolated_layer_lies_between_its_neighbours(
    tiny: Tiny, store: CheckpointStore, model: str, weight: float
) -> None:
    before = load_file(tiny(model) / "model.safetensors")
    with operate(tiny(model), store, {"type": "extend.interpolate", "layers": [0], "weight": weight}) as modified:
        after = load_file(modified.path / "model.safetensors")
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
def test_norms_and_biases_lie_between_too(copy: Copy, store: CheckpointStore, model: str) -> None:
    folder = with_vectors(copy(model, attention_bias=True))
    before = load_file(folder / "model.safetensors")
    with operate(folder, store, {"type": "extend.interpolate", "layers": [1], "weight": 0.25}) as modified:
        after = load_file(modified.path / "model.safetensors")
    vectors = [name for name, tensor in before.items() if ".layers.1." in name and tensor.ndim == 1]
    assert {name.rpartition(".")[2] for name in vectors} == {"weight", "bias"}
    for name in vectors:
        first, second = before[name].double(), before[name.replace(".1.", ".2.")].double()
        expected = (0.75 * first + 0.25 * second).to(torch.bfloat16)
        torch.testing.assert_close(after[name.replace(".1.", ".2.")], expected, rtol=8e-3, atol=1e-4)
        assert not torch.equal(expected, before[name])


def test_nothing_lies_between_a_dense_layer_and_one_of_experts(tiny: Tiny, store: CheckpointStore) -> None:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "mlp_only_layers": [0]}
    folder = tiny("llama", model_type="qwen3_moe", num_hidden_layers=4, **experts)
    for fields, pointer in (({}, "/r/0"), ({"layers": [1, 0]}, "/r/0/layers")):
        with pytest.raises(HemostatError, match="layers 0 and 1 have other tensors") as caught:
            step = {"type": "extend.interpolate"} | fields
            check_recipe(inspect(folder), RECIPE.validate_python([step]), pointer="/r")
        assert (caught.value.code, caught.value.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, pointer)
        assert caught.value.hint == "layers whose next one is of the same kind: 1, 2"
    with operate(folder, store, {"type": "extend.interpolate", "layers": [1, 2]}) as modified:
        assert inspect(modified.path).config["mlp_only_layers"] == [0]
        assert bool(logits(load(modified.path)).isfinite().all())
    alone = tiny("llama", model_type="qwen3_moe", **(experts | {"mlp_only_layers": [1]}))
    with pytest.raises(HemostatError) as caught:
        check_recipe(inspect(alone), RECIPE.validate_python([{"type": "extend.interpolate"}]), pointer="/r")
    assert caught.value.hint == "no layer of this model is followed by one of its kind"


def test_layers_of_scaled_channels_are_interpolated_by_what_they_stand_for(
    tmp_path: Path, store: CheckpointStore
) -> None:
    source = with_outliers(make_checkpoint(tmp_path / "source"))
    awq, between = {"type": "quantize.awq", "bits": 8, "group_size": 32}, {"type": "extend.interpolate"}

    def made(*steps: dict[str, Any]) -> Path:
        with quantized(source, store, *steps) as modified:
            return modified.path

    alone, behind = made(between), made(awq, between)
    assert divergence(alone, behind) < 0.1 * divergence(alone, source)
    name = "model.layers.1.self_attn.q_proj.weight"
    meant = Channels.of(inspect(behind)).meaning(name, load_file(behind / "model.safetensors")[name])
    expected = load_file(alone / "model.safetensors")[name].float()
    assert float((meant - expected).norm() / expected.norm()) < 0.02


@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        *((model, sizes) for model in ("llama", "gemma2", "granite") for sizes in ({"heads": 2}, {"channels": 2})),
        ("llama", {"heads": 4, "channels": 3}),
        ("qwen2", {"channels": 2}),
    ],
)
def test_width_keeps_the_function(tiny: Tiny, store: CheckpointStore, model: str, sizes: dict[str, int]) -> None:
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


def test_keys_and_values_of_several_groups_are_widened_with_their_queries(tiny: Tiny, store: CheckpointStore) -> None:
    """Four query heads in two groups: a copy must go on reading the keys and values of its own group."""
    folder = tiny("llama", num_attention_heads=4, num_key_value_heads=2)
    with operate(folder, store, {"type": "extend.width", "heads": 2}) as modified:
        config = inspect(modified.path).config
        found = logits(load(modified.path))
    assert (config["num_attention_heads"], config["num_key_value_heads"]) == (8, 4)
    torch.testing.assert_close(found, logits(load(folder)), rtol=1e-4, atol=1e-4)


def test_noise_breaks_the_symmetry_of_copies_and_is_seeded(tiny: Tiny, store: CheckpointStore) -> None:
    step = {"type": "extend.width", "channels": 2, "noise": 0.1}
    name = "model.layers.0.mlp.up_proj.weight"
    with operate(tiny(), store, step) as modified:
        first = load_file(modified.path / "model.safetensors")[name]
    with operate(tiny(), store, step | {"seed": 1}) as modified:
        other = load_file(modified.path / "model.safetensors")[name]
    before = load_file(tiny() / "model.safetensors")[name]
    assert torch.equal(first[::2], before)
    assert not torch.equal(first[1::2], before)
    assert not torch.equal(first[1::2], other[1::2])
    spread = float((first[1::2].float() - before.float()).std() / before.float().std())
    assert 0.08 < spread < 0.12


def test_what_was_done_to_a_layer_goes_with_it(tiny: Tiny, store: CheckpointStore) -> None:
    quantized = {"type": "quantize.rtn", "bits": 4, "group_size": 32, "layers": [2]}
    with operate(tiny(), store, quantized, {"type": "extend.duplicate", "layers": [2]}) as modified:
        told = {change.name: change.bits_per_weight for change in modified.manifest.tensors}
    assert {name.split(".")[2] for name in told} == {"2", "3"}
    assert set(told.values()) == {4 + 20 / 32}


@pytest.mark.parametrize(
    ("step", "pointer"),
    [
        ({"type": "extend.duplicate", "layers": [0, 2]}, "/layers"),
        ({"type": "extend.duplicate", "layers": [3]}, "/layers/0"),
        ({"type": "extend.interpolate", "layers": [2]}, "/layers"),
        ({"type": "extend.identity", "modules": ["mlp"]}, "/modules"),
        ({"type": "extend.width"}, ""),
        ({"type": "extend.width", "heads": 2, "layers": [0]}, "/layers"),
        ({"type": "extend.width", "heads": 3}, "/heads"),
    ],
)
def test_what_cannot_be_extended_is_refused(tiny: Tiny, step: dict[str, Any], pointer: str) -> None:
    with pytest.raises(HemostatError) as caught:
        check_recipe(inspect(tiny()), RECIPE.validate_python([step]), pointer="/r")
    assert caught.value.code in {ErrorCode.RECIPE_NOT_APPLICABLE, ErrorCode.UNKNOWN_MODULE}
    assert caught.value.pointer == f"/r/0{pointer}"
    assert caught.value.hint


def test_heads_that_no_engine_would_serve_are_refused(tiny: Tiny) -> None:
    recipe = RECIPE.validate_python([{"type": "extend.width", "heads": 2}])
    with pytest.raises(HemostatError, match="Qwen2ForCausalLM") as caught:
        check_recipe(inspect(tiny("qwen2")), recipe, pointer="/r")
    assert caught.value.pointer == "/r/0/heads"


def test_a_mixture_cannot_be_widened(tiny: Tiny) -> None:
    with pytest.raises(HemostatError, match="MixtralForCausalLM"):
        check_recipe(
            inspect(tiny("mixtral")), RECIPE.validate_python([{"type": "extend.width", "heads": 2}]), pointer=""
        )


def test_later_steps_are_checked_against_the_model_that_will_be(tiny: Tiny) -> None:
    deeper = {"type": "extend.identity"}
    late = {"type": "quantize.rtn", "bits": 4, "group_size": 32, "layers": [5]}
    check_recipe(inspect(tiny()), RECIPE.validate_python([deeper, late]), pointer="/r")
    with pytest.raises(HemostatError) as caught:
        check_recipe(inspect(tiny()), RECIPE.validate_python([late, deeper]), pointer="/r")
    assert caught.value.pointer == "/r/0/layers/0"
    wider = {"type": "extend.width", "channels": 3}
    grouped = {"type": "quantize.rtn", "bits": 4, "group_size": 384, "modules": ["down_proj"]}
    check_recipe(inspect(tiny()), RECIPE.validate_python([wider, grouped]), pointer="/r")
