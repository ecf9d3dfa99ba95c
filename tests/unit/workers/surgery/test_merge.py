"""Adapters and merges against PEFT itself and plain arithmetic."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode, HemostatError
from app.models.adapters import check_adapter, inspect_adapter
from app.models.checkpoint import inspect
from app.models.registry import load_registry
from app.models.steps.others import checker
from app.recipes.notices import StepNotice
from app.settings import Settings
from tests.support.checked import RECIPE, checked
from tests.support.copies import edit_json
from tests.support.pruning import rewrite, weights
from tests.support.quantizing import divergence, text
from tests.support.refusals import refusal_of
from workers.surgery.recipe import apply


@pytest.fixture
def adapter(tiny, tmp_path):
    """An adapter with random factors, as PEFT writes it."""
    from peft import LoraConfig, get_peft_model

    def make(name="adapter", kind="llama", **options):
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


def operate(folder, store, other, *steps):
    recipe = RECIPE.validate_python(steps)
    return apply(
        inspect(folder), recipe, device="cpu", store=store, others=lambda _: other, calibration=lambda _: text()
    )


def merged_by_peft(folder, adapter):
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
        {"r": 2, "lora_alpha": None},
        {"r": 2, "lora_alpha": None, "use_rslora": True},
    ],
)
def test_merged_weights_are_pefts(tiny, store, adapter, options):
    """An alpha that is not written is PEFT's own default."""
    path = adapter(**{name: value for name, value in options.items() if value is not None})
    if "lora_alpha" in options:
        edit_json(path / "adapter_config.json", lora_alpha=None)
    reference = merged_by_peft(tiny(), path).state_dict()
    with operate(tiny(), store, path, {"type": "adapter.lora", "adapter": "adapter"}) as modified:
        found = weights(modified.path)
        changed = {change.name for change in modified.manifest.tensors}
    before = weights(tiny())
    assert changed == {name for name in before if not torch.equal(found[name], before[name])}
    assert len(changed) in {6, 21}
    for name in changed:
        torch.testing.assert_close(found[name], reference[name].to(torch.bfloat16), rtol=8e-3, atol=1e-3)


def test_the_output_matrix_of_a_tied_model_takes_no_adapter(tiny, adapter):
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


def test_strength_and_places(tiny, store, adapter):
    path = adapter()
    name = "model.layers.1.self_attn.q_proj.weight"
    before = weights(tiny())[name].float()
    with operate(tiny(), store, path, {"type": "adapter.lora", "adapter": "a", "strength": -1.0}) as modified:
        minus = weights(modified.path)[name].float() - before
    only = {"type": "adapter.lora", "adapter": "a", "layers": [1], "modules": ["attention"]}
    with operate(tiny(), store, path, only) as modified:
        assert {change.name for change in modified.manifest.tensors} == {name}
        plus = weights(modified.path)[name].float() - before
        assert modified.manifest.steps[0].warnings == (StepNotice.WEIGHTS_NOT_ADDRESSED(weights=5),)
    torch.testing.assert_close(minus, -plus, rtol=0.1, atol=0.02)  # each rounded to bf16 beside the weight


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_a_linear_merge_is_the_weighted_mean(tiny, store, weight):
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


def test_norms_and_biases_are_mixed_too(copy, store):
    """Of tiny models as they are made all norms are 1 and all biases 0."""

    def change(seed):
        def draw(tensors):
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


def test_a_merge_of_named_layers_leaves_the_others(tiny, store):
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
    {"type": "quantize.dynamic", "bits": 8, "group_size": 32, "block_epochs": 0},
]
LORA = {"type": "adapter.lora", "adapter": "adapter"}


@pytest.fixture
def loud(outliers, tmp_path):
    """An adapter for it whose effect is far above 8 bits' rounding."""
    folder, draw, found = tmp_path / "loud", torch.Generator().manual_seed(3), {}
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj", "up_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    for name, weight in weights(outliers()).items():
        if name.split(".")[-2] in config["target_modules"]:
            key = f"base_model.model.{name.removesuffix('.weight')}"
            found[f"{key}.lora_A.weight"] = torch.randn(4, weight.shape[1], generator=draw) * 0.1
            found[f"{key}.lora_B.weight"] = torch.randn(weight.shape[0], 4, generator=draw) * 0.1
    save_file(found, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize("step", SCALING, ids=lambda step: str(step["type"]))
def test_an_adapter_behind_scaled_channels_does_what_it_does_before(outliers, loud, shared, step):
    rounded = {"type": "quantize.rtn", "bits": 8, "group_size": 32}
    with (
        operate(outliers(), shared, loud, LORA) as tuned,
        operate(outliers(), shared, loud, rounded, LORA) as plain,
        operate(outliers(), shared, loud, step, LORA) as behind,
        operate(outliers(), shared, loud, LORA, step) as before,
    ):
        effect = divergence(outliers(), tuned.path)
        lost = divergence(tuned.path, behind.path)
        assert lost < 1.5 * max(divergence(tuned.path, plain.path), divergence(tuned.path, before.path))
        assert lost < 0.1 * effect


def test_another_model_of_scaled_channels_is_mixed_in_as_what_it_stands_for(outliers, shared):
    merge = {"type": "merge.linear", "other": "other", "weight": 0.5}
    with operate(outliers(), shared, outliers(), SCALING[0]) as scaled:
        with operate(outliers(), shared, scaled.path, merge) as mixed:
            assert divergence(outliers(), mixed.path) < divergence(outliers(), scaled.path)
        with operate(outliers(), shared, scaled.path, SCALING[0], merge) as same:
            found, own = weights(same.path), weights(scaled.path)
            for name, tensor in own.items():
                torch.testing.assert_close(found[name], tensor, rtol=8e-3, atol=1e-4)


def test_an_adapter_with_a_record_is_of_that_frame(outliers, loud, shared):
    with operate(outliers(), shared, loud, SCALING[0]) as scaled:
        shutil.copyfile(scaled.path / "channels.npz", loud / "channels.npz")
        plain = merged_by_peft(scaled.path, loud).state_dict()
    with operate(outliers(), shared, loud, SCALING[0], LORA) as merged:
        for name, tensor in weights(merged.path).items():
            torch.testing.assert_close(tensor.float(), plain[name], rtol=8e-3, atol=1e-3)
        key = merged.manifest.key
    (loud / "channels.npz").unlink()
    with operate(outliers(), shared, loud, SCALING[0], LORA) as other:
        assert other.manifest.key != key


# ---- refusals, before anything is queued


@pytest.fixture
def rejected(tiny, tmp_path, store):
    """`rejected(step, root)`: (code, place) of the error of a step, and the error."""
    packing = {"type": "quantize.rtn", "bits": 4, "group_size": 32, "form": "packed"}
    with operate(tiny(), store, None, packing) as packed:
        kinds = {"wide": "llama-padded", "qwen": "qwen2", "untied": "llama-untied"}
        others = {"packed": packed.path} | {name: tiny(kind) for name, kind in kinds.items()}
        file = tmp_path / "models.toml"
        file.write_text("\n".join(f'[models.{name}]\npath = "{path}"\n' for name, path in others.items()))

        def of(step, root=None):
            beside = checker(load_registry(file), Settings(models=file, adapter_root=root))
            error = refusal_of(checked, tiny(), step, beside=beside)
            return (error.code, error.pointer), error

        yield of


def test_an_adapter_lies_below_its_root(rejected, tmp_path):
    for path, code in (("missing", ErrorCode.CHECKPOINT_NOT_FOUND), ("../a", ErrorCode.PATH_FORBIDDEN)):
        assert rejected(LORA | {"adapter": path}, tmp_path)[0] == (code, "/r/0/adapter")
        told, error = rejected(LORA | {"adapter": path})
        assert told == (ErrorCode.PATH_FORBIDDEN, "/r/0/adapter")
        assert "HEMOSTAT_ADAPTER_ROOT" in error.hint


def test_what_cannot_be_merged_exactly_is_refused(rejected, adapter):
    config = adapter() / "adapter_config.json"
    sound = json.loads(config.read_text())
    for change, word in (
        ({"peft_type": "IA3"}, "IA3"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa"),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens"),
        ({"alpha_pattern": {"q_proj(": 1}}, "alpha"),
    ):
        config.write_text(json.dumps(sound | change))
        (code, _), error = rejected(LORA, config.parents[1])
        assert code is ErrorCode.CHECKPOINT_UNSUPPORTED
        assert word in error.detail


def test_weights_of_another_model_and_pickled_ones_are_refused(rejected, adapter):
    file = adapter() / "adapter_model.safetensors"
    tensors = load_file(file)
    key = next(name for name in tensors if name.endswith("lora_A.weight"))
    save_file({**tensors, key: torch.zeros(4, 65)}, file)
    (code, _), error = rejected(LORA, file.parents[1])
    assert code is ErrorCode.RECIPE_NOT_APPLICABLE
    assert "65" in error.detail
    file.rename(file.with_suffix(".bin"))
    assert rejected(LORA, file.parents[1])[0][0] is ErrorCode.CHECKPOINT_UNSAFE


def test_another_shape_a_packed_model_or_an_unknown_alias_cannot_be_mixed(rejected):
    merge = {"type": "merge.linear"}
    for other in ("wide", "qwen", "untied", "packed"):
        told, error = rejected(merge | {"other": other})
        assert told == (ErrorCode.RECIPE_NOT_APPLICABLE, "/r/0/other")
        assert error.hint
    assert "(w4a16)" in error.detail
    assert rejected(merge | {"other": "nobody"})[0] == (ErrorCode.UNKNOWN_MODEL, "/r/0/other")


def test_without_a_place_for_others_nothing_is_guessed(tiny, store):
    recipe = RECIPE.validate_python([{"type": "merge.linear", "other": "a"}])
    assert refusal_of(apply, inspect(tiny()), recipe, device="cpu", store=store).code is ErrorCode.RECIPE_NOT_APPLICABLE
