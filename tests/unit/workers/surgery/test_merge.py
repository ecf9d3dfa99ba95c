"""Adapters and merges against PEFT itself and plain arithmetic."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode, HemostatError
from app.models.adapters import check_adapter, inspect_adapter
from app.models.checkpoint import inspect
from app.models.registry import load_registry
from app.models.steps import check_recipe
from app.models.steps.others import checker
from app.recipes.recipe import Recipe
from app.settings import Settings
from tests.support.copies import Copy
from tests.support.outliers import with_outliers
from tests.support.packed import make_packed
from tests.support.pruning import rewrite
from tests.support.quantizing import divergence, text
from tests.support.tiny import make_checkpoint
from workers.surgery.modified import Modified
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

Tiny = Callable[..., Path]
Make = Callable[..., Path]
RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
TOKENS = torch.randint(2, 300, (2, 20), generator=torch.Generator().manual_seed(5))


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "store", 10**9)


@pytest.fixture
def adapter(tiny: Tiny, tmp_path: Path) -> Make:
    """An adapter with random factors, as PEFT writes it."""
    from peft import LoraConfig, get_peft_model

    def make(name: str = "adapter", kind: str = "llama", **options: Any) -> Path:
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_pretrained(tiny(kind), dtype=torch.float32)
        config = LoraConfig(**({"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"]} | options))
        wrapped = get_peft_model(model, config)
        for parameter_name, parameter in wrapped.named_parameters():
            if "lora_" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.3)
        wrapped.save_pretrained(tmp_path / "adapters" / name)
        return tmp_path / "adapters" / name

    return make


def operate(folder: Path, store: CheckpointStore, other: Path, *steps: dict[str, Any]) -> Modified:
    return apply(inspect(folder), RECIPE.validate_python(steps), store=store, others=lambda _: other)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def merged_by_peft(folder: Path, adapter: Path) -> Any:
    from peft import PeftModel

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return PeftModel.from_pretrained(model, adapter).merge_and_unload()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"down_proj": 2}, "alpha_pattern": {"q_proj": 1}},
        {"target_modules": "all-linear", "r": 1},
        {"alpha_pattern": {r"layers\.(0|2)\..*(q_proj|down_proj)": 2}},
    ],
)
def test_merged_weights_are_pefts(tiny: Tiny, store: CheckpointStore, adapter: Make, options: dict[str, Any]) -> None:
    path = adapter(**options)
    reference = merged_by_peft(tiny(), path).state_dict()
    with operate(tiny(), store, path, {"type": "adapter.lora", "adapter": "adapter"}) as modified:
        found = weights(modified.path)
        changed = {change.name for change in modified.manifest.tensors}
    before = weights(tiny())
    assert changed == {name for name in before if not torch.equal(found[name], before[name])}
    assert len(changed) in {6, 21}
    for name in changed:
        torch.testing.assert_close(found[name], reference[name].to(torch.bfloat16), rtol=8e-3, atol=1e-3)


@pytest.mark.parametrize("rslora", [False, True])
def test_an_alpha_that_is_not_written_is_pefts(tiny: Tiny, store: CheckpointStore, adapter: Make, rslora: bool) -> None:
    path, name = adapter(r=2, use_rslora=rslora), "model.layers.1.mlp.down_proj.weight"
    config = json.loads((path / "adapter_config.json").read_text())
    assert config.pop("lora_alpha") == 6
    (path / "adapter_config.json").write_text(json.dumps(config))
    with operate(tiny(), store, path, {"type": "adapter.lora", "adapter": "adapter"}) as modified:
        found = weights(modified.path)[name]
    expected = merged_by_peft(tiny(), path).state_dict()[name].to(torch.bfloat16)
    torch.testing.assert_close(found, expected, rtol=8e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["qwen2", "gemma2"])
def test_other_architectures_take_adapters_and_merges_too(
    tiny: Tiny, store: CheckpointStore, adapter: Make, kind: str
) -> None:
    path = adapter(kind, kind)
    reference, before = merged_by_peft(tiny(kind), path).state_dict(), weights(tiny(kind))
    with operate(tiny(kind), store, path, {"type": "adapter.lora", "adapter": kind}) as modified:
        found = weights(modified.path)
    changed = {name for name in before if not torch.equal(found[name], before[name])}
    assert len(changed) == 6
    for name in changed:
        torch.testing.assert_close(found[name], reference[name].to(torch.bfloat16), rtol=8e-3, atol=1e-3)
    other = tiny(kind, seed=9)
    with operate(tiny(kind), store, other, {"type": "merge.linear", "other": "other", "weight": 0.3}) as modified:
        found = weights(modified.path)
    for name, tensor in weights(other).items():
        expected = 0.7 * before[name].double() + 0.3 * tensor.double()
        torch.testing.assert_close(found[name], expected.to(torch.bfloat16), rtol=8e-3, atol=1e-6)


def test_the_output_matrix_of_a_tied_model_takes_no_adapter(tiny: Tiny, adapter: Make) -> None:
    """Even where its file holds a copy of the matrix: no engine reads it."""
    found = inspect_adapter(adapter())
    name, target = next(iter(found.targets.items()))
    found = replace(found, targets={name: replace(target, weight="lm_head.weight")})
    info = inspect(tiny())
    assert info.tied
    tensors = info.tensors | {"lm_head.weight": info.tensors["model.embed_tokens.weight"]}
    for held in (info, replace(info, tensors=tensors)):
        with pytest.raises(HemostatError, match="ties to its embedding") as caught:
            check_adapter(found, held, pointer="/adapter")
        assert (caught.value.code, caught.value.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, "/adapter")


def test_strength_and_places(tiny: Tiny, store: CheckpointStore, adapter: Make) -> None:
    path = adapter()
    name = "model.layers.1.self_attn.q_proj.weight"
    before = weights(tiny())[name].float()
    with operate(tiny(), store, path, {"type": "adapter.lora", "adapter": "a", "strength": -1.0}) as modified:
        minus = weights(modified.path)[name].float() - before
    only = {"type": "adapter.lora", "adapter": "a", "layers": [1], "modules": ["attention"]}
    with operate(tiny(), store, path, only) as modified:
        assert {change.name for change in modified.manifest.tensors} == {name}
        plus = weights(modified.path)[name].float() - before
        assert modified.manifest.steps[0].warnings == ("5 weights of the adapter are not addressed by the step",)
    torch.testing.assert_close(minus, -plus, rtol=0.1, atol=0.02)  # each rounded to bf16 beside the weight


def test_another_adapter_makes_another_checkpoint(tiny: Tiny, store: CheckpointStore, adapter: Make) -> None:
    step = {"type": "adapter.lora", "adapter": "a"}
    keys = set()
    for path in (adapter("one"), adapter("two", lora_alpha=7)):
        with operate(tiny(), store, path, step) as modified:
            keys.add(modified.manifest.key)
    assert len(keys) == 2


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_a_linear_merge_is_the_weighted_mean(tiny: Tiny, store: CheckpointStore, weight: float) -> None:
    other = tiny("llama", seed=9)
    with operate(tiny(), store, other, {"type": "merge.linear", "other": "other", "weight": weight}) as modified:
        found = weights(modified.path)
    one, two = weights(tiny()), weights(other)
    assert found.keys() == one.keys()
    for name, tensor in found.items():
        expected = (1 - weight) * one[name].double() + weight * two[name].double()
        torch.testing.assert_close(tensor, expected.to(torch.bfloat16), rtol=8e-3, atol=1e-6)
    if weight == 0.0:
        assert all(torch.equal(found[name], one[name]) for name in found)
    if weight == 1.0:
        assert all(torch.equal(found[name], two[name]) for name in found)


def test_norms_and_biases_are_mixed_too(copy: Copy, store: CheckpointStore) -> None:
    """Of tiny models as they are made all norms are 1 and all biases 0."""

    def change(seed: int) -> Callable[[dict[str, torch.Tensor]], None]:
        def draw(tensors: dict[str, torch.Tensor]) -> None:
            lots = torch.Generator().manual_seed(seed)
            for tensor in tensors.values():
                if tensor.ndim == 1:
                    tensor.copy_(torch.randn(tensor.shape, generator=lots))

        return draw

    one, two = (rewrite(copy("qwen2", name=name), change(seed)) for seed, name in enumerate(("one", "two")))
    with operate(one, store, two, {"type": "merge.linear", "other": "other", "weight": 0.3}) as modified:
        found = weights(modified.path)
    vectors = [name for name, tensor in found.items() if tensor.ndim == 1]
    assert {name.rpartition(".")[2] for name in vectors} == {"weight", "bias"}
    for name in vectors:
        expected = 0.7 * weights(one)[name].double() + 0.3 * weights(two)[name].double()
        torch.testing.assert_close(found[name], expected.to(torch.bfloat16), rtol=8e-3, atol=1e-6)


def test_a_merge_of_named_layers_leaves_the_others(tiny: Tiny, store: CheckpointStore) -> None:
    step = {"type": "merge.linear", "other": "other", "weight": 1.0, "layers": [2], "modules": ["mlp"]}
    other = tiny("llama", seed=9)
    with operate(tiny(), store, other, step) as modified:
        found = weights(modified.path)
    for name, tensor in found.items():
        taken = ".layers.2.mlp." in name
        assert torch.equal(tensor, weights(other if taken else tiny())[name])


# ---- behind steps that scale channels

SCALING = [
    {"type": "quantize.awq", "bits": 8, "group_size": 32},
    {"type": "quantize.smoothquant", "bits": 8},
    {"type": "quantize.dynamic", "bits": 8, "group_size": 32},
]
LORA = {"type": "adapter.lora", "adapter": "adapter"}


@pytest.fixture
def outliers(tmp_path: Path) -> Path:
    return with_outliers(make_checkpoint(tmp_path / "outliers"))


@pytest.fixture
def loud(outliers: Path, tmp_path: Path) -> Path:
    """An adapter for it whose effect is far above 8 bits' rounding."""
    folder, draw, found = tmp_path / "loud", torch.Generator().manual_seed(3), {}
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj", "up_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    for name, weight in weights(outliers).items():
        if name.split(".")[-2] in config["target_modules"]:
            key = f"base_model.model.{name.removesuffix('.weight')}"
            found[f"{key}.lora_A.weight"] = torch.randn(4, weight.shape[1], generator=draw) * 0.1
            found[f"{key}.lora_B.weight"] = torch.randn(weight.shape[0], 4, generator=draw) * 0.1
    save_file(found, folder / "adapter_model.safetensors")
    return folder


def calibrated(folder: Path, store: CheckpointStore, other: Path, *steps: dict[str, Any]) -> Modified:
    recipe = RECIPE.validate_python(steps)
    return apply(inspect(folder), recipe, store=store, others=lambda _: other, calibration=lambda _: text())


@pytest.mark.parametrize("step", SCALING, ids=lambda step: str(step["type"]))
def test_an_adapter_behind_scaled_channels_does_what_it_does_before(
    outliers: Path, loud: Path, store: CheckpointStore, step: dict[str, Any]
) -> None:
    rounded = {"type": "quantize.rtn", "bits": 8, "group_size": 32}
    with (
        calibrated(outliers, store, loud, LORA) as tuned,
        calibrated(outliers, store, loud, rounded, LORA) as plain,
        calibrated(outliers, store, loud, step, LORA) as behind,
        calibrated(outliers, store, loud, LORA, step) as before,
    ):
        effect = divergence(outliers, tuned.path)
        lost = divergence(tuned.path, behind.path)
        assert lost < 1.5 * max(divergence(tuned.path, plain.path), divergence(tuned.path, before.path))
        assert lost < 0.1 * effect


@pytest.mark.parametrize("step", SCALING, ids=lambda step: str(step["type"]))
def test_a_merge_with_the_original_brings_a_model_of_scaled_channels_nearer_to_it(
    outliers: Path, store: CheckpointStore, step: dict[str, Any]
) -> None:
    rough = step | {"bits": 4}
    merge = {"type": "merge.linear", "other": "other", "weight": 0.5}
    with (
        calibrated(outliers, store, outliers, rough) as scaled,
        calibrated(outliers, store, outliers, rough, merge) as halfway,
        calibrated(outliers, store, outliers, rough, merge | {"weight": 1.0}) as there,
    ):
        assert divergence(outliers, halfway.path) < 0.7 * divergence(outliers, scaled.path)
        assert divergence(outliers, there.path) < 0.05 * divergence(outliers, scaled.path)


def test_another_model_of_scaled_channels_is_mixed_in_as_what_it_stands_for(
    outliers: Path, store: CheckpointStore
) -> None:
    merge = {"type": "merge.linear", "other": "other", "weight": 0.5}
    with calibrated(outliers, store, outliers, SCALING[0]) as scaled:
        with calibrated(outliers, store, scaled.path, merge) as mixed:
            assert divergence(outliers, mixed.path) < divergence(outliers, scaled.path)
        with calibrated(outliers, store, scaled.path, SCALING[0], merge) as same:
            found, own = weights(same.path), weights(scaled.path)
            for name, tensor in own.items():
                torch.testing.assert_close(found[name], tensor, rtol=8e-3, atol=1e-4)


def test_an_adapter_with_a_record_is_of_that_frame(outliers: Path, loud: Path, store: CheckpointStore) -> None:
    with calibrated(outliers, store, loud, SCALING[0]) as scaled:
        shutil.copyfile(scaled.path / "channels.npz", loud / "channels.npz")
        plain = merged_by_peft(scaled.path, loud).state_dict()
    with calibrated(outliers, store, loud, SCALING[0], LORA) as merged:
        for name, tensor in weights(merged.path).items():
            torch.testing.assert_close(tensor.float(), plain[name], rtol=8e-3, atol=1e-3)
        key = merged.manifest.key
    (loud / "channels.npz").unlink()
    with calibrated(outliers, store, loud, SCALING[0], LORA) as other:
        assert other.manifest.key != key


# ---- refusals, before anything is queued


def refused(tiny: Tiny, tmp_path: Path, step: dict[str, Any], root: Path | None) -> HemostatError:
    file = tmp_path / "models.toml"
    others = (("a", tiny()), ("wide", tiny("llama-padded")), ("qwen", tiny("qwen2")), ("untied", tiny("llama-untied")))
    lines = [f'[models.{name}]\npath = "{path}"\n' for name, path in others]
    file.write_text("\n".join(lines))
    settings = Settings(models=file, adapter_root=root)
    with pytest.raises(HemostatError) as caught:
        check_recipe(
            inspect(tiny()),
            RECIPE.validate_python([step]),
            pointer="/r",
            beside=checker(load_registry(file), settings),
        )
    return caught.value


@pytest.mark.parametrize(
    ("path", "code"), [("missing", ErrorCode.CHECKPOINT_NOT_FOUND), ("../a", ErrorCode.PATH_FORBIDDEN)]
)
def test_an_adapter_lies_below_its_root(tiny: Tiny, tmp_path: Path, path: str, code: ErrorCode) -> None:
    error = refused(tiny, tmp_path, {"type": "adapter.lora", "adapter": path}, tmp_path)
    assert (error.code, error.pointer) == (code, "/r/0/adapter")
    error = refused(tiny, tmp_path, {"type": "adapter.lora", "adapter": path}, None)
    assert (error.code, error.pointer) == (ErrorCode.PATH_FORBIDDEN, "/r/0/adapter")
    assert "HEMOSTAT_ADAPTER_ROOT" in error.hint


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa"),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens"),
        ({"alpha_pattern": {"q_proj(": 1}}, "alpha"),
    ],
)
def test_what_cannot_be_merged_exactly_is_refused(
    tiny: Tiny, tmp_path: Path, adapter: Make, change: dict[str, Any], word: str
) -> None:
    config = adapter() / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    error = refused(tiny, tmp_path, {"type": "adapter.lora", "adapter": "adapter"}, config.parents[1])
    assert error.code is ErrorCode.CHECKPOINT_UNSUPPORTED
    assert word in error.detail


def test_an_adapter_of_another_model_is_refused_with_the_weight(tiny: Tiny, tmp_path: Path, adapter: Make) -> None:
    path = adapter()
    tensors = load_file(path / "adapter_model.safetensors")
    key = next(name for name in tensors if name.endswith("lora_A.weight"))
    save_file({**tensors, key: torch.zeros(4, 65)}, path / "adapter_model.safetensors")
    error = refused(tiny, tmp_path, {"type": "adapter.lora", "adapter": "adapter"}, path.parent)
    assert error.code is ErrorCode.RECIPE_NOT_APPLICABLE
    assert "65" in error.detail


def test_a_pickled_adapter_is_refused(tiny: Tiny, tmp_path: Path, adapter: Make) -> None:
    path = adapter()
    (path / "adapter_model.safetensors").rename(path / "adapter_model.bin")
    error = refused(tiny, tmp_path, {"type": "adapter.lora", "adapter": "adapter"}, path.parent)
    assert error.code is ErrorCode.CHECKPOINT_UNSAFE


def test_another_shape_or_alias_cannot_be_mixed(tiny: Tiny, tmp_path: Path) -> None:
    for other in ("wide", "qwen", "untied"):
        error = refused(tiny, tmp_path, {"type": "merge.linear", "other": other}, None)
        assert (error.code, error.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, "/r/0/other")
        assert error.hint
    error = refused(tiny, tmp_path, {"type": "merge.linear", "other": "nobody"}, None)
    assert (error.code, error.pointer) == (ErrorCode.UNKNOWN_MODEL, "/r/0/other")


def test_a_packed_model_is_not_mixed_in(tiny: Tiny, tmp_path: Path) -> None:
    packed = make_packed(tiny(), tmp_path / "packed", "W8A8")
    file = tmp_path / "models.toml"
    file.write_text(f'[models.packed]\npath = "{packed}"\n')
    recipe = RECIPE.validate_python([{"type": "merge.linear", "other": "packed"}])
    with pytest.raises(HemostatError, match=r"packed is packed \(w8a8\)") as caught:
        check_recipe(inspect(tiny()), recipe, pointer="/r", beside=checker(load_registry(file), Settings(models=file)))
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, "/r/0/other")
    assert caught.value.hint == "give the plain checkpoint"


def test_without_a_place_for_others_nothing_is_guessed(tiny: Tiny, store: CheckpointStore) -> None:
    with pytest.raises(HemostatError) as caught:
        apply(inspect(tiny()), RECIPE.validate_python([{"type": "merge.linear", "other": "a"}]), store=store)
    assert caught.value.code is ErrorCode.RECIPE_NOT_APPLICABLE
