"""What of the packed forms is refused, and where. That vLLM serves the rest is shown by running it, elsewhere."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo, inspect
from app.models.steps import check_recipe
from app.models.steps import quantize as rules
from app.recipes.recipe import Recipe

Tiny = Callable[..., Path]
RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
PACKED = {"form": "packed", "group_size": 32}


def check(folder: Path, *steps: dict[str, Any]) -> CheckpointInfo:
    return check_recipe(inspect(folder), RECIPE.validate_python(steps), pointer="/candidate/recipe")


def refused(folder: Path, *steps: dict[str, Any]) -> tuple[str, str]:
    """(code, pointer below the recipe) of the refusal."""
    with pytest.raises(HemostatError) as caught:
        check(folder, *steps)
    assert caught.value.hint
    assert caught.value.pointer is not None
    return caught.value.code.value, caught.value.pointer.removeprefix("/candidate/recipe")


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`on("cpu")`: as where the vLLM of these devices is installed, and the processor has no AMX."""
    monkeypatch.setattr(rules, "has_amx", lambda: False)
    monkeypatch.setattr(rules, "has_avx512", lambda: True)
    return lambda *devices: monkeypatch.setattr(rules, "served_devices", lambda: devices)


RTN, GPTQ, AWQ = ({"type": f"quantize.{name}", "bits": 4} | PACKED for name in ("rtn", "gptq", "awq"))
SMOOTH = {"type": "quantize.smoothquant", "form": "packed"}
FP8 = {"type": "quantize.fp8", "form": "packed"}


@pytest.mark.parametrize(
    ("step", "scheme"),
    [
        (RTN, "w4a16"),
        (GPTQ | {"symmetric": True, "group_size": None}, "w4a16"),
        (AWQ | {"group_size": 2}, "w4a16"),
        (SMOOTH, "w8a8"),
        (SMOOTH | {"dynamic": False}, "w8a8"),
        (SMOOTH | {"bits": 4}, "w4a8"),
        (FP8 | {"activations": "dynamic"}, "fp8"),
    ],
)
def test_what_a_cpu_serves(tiny: Tiny, on: Callable[..., None], step: dict[str, Any], scheme: str) -> None:
    on("cpu")
    assert check(tiny(), step).scheme == scheme


@pytest.mark.parametrize(
    ("step", "field"),
    [
        (RTN | {"bits": 3}, "/0/bits"),
        (RTN | {"bits": 8, "symmetric": True}, "/0/bits"),
        (RTN | {"group_size": 1}, "/0/group_size"),
        (SMOOTH | {"activation_bits": 4}, "/0/activation_bits"),
        (SMOOTH | {"bits": 6}, "/0/bits"),
        (SMOOTH | {"bits": 4, "dynamic": False}, "/0/dynamic"),
        (FP8, "/0/activations"),
        (FP8 | {"activations": "static"}, "/0/activations"),
        (RTN | {"modules": ["q_proj"]}, "/0/modules"),
        (GPTQ | {"modules": ["attention", "up_proj"]}, "/0/modules"),
        (RTN | {"modules": ["mlp", "embed_tokens"]}, "/0/modules"),
    ],
)
def test_what_no_kernel_of_a_cpu_serves(tiny: Tiny, on: Callable[..., None], step: dict[str, Any], field: str) -> None:
    on("cpu")
    assert refused(tiny(), step) == ("packing_unsupported", field)


def test_cuda_serves_other_forms(tiny: Tiny, on: Callable[..., None]) -> None:
    eight = RTN | {"bits": 8, "symmetric": True}
    on("cuda")
    assert check(tiny(), eight).scheme == "w8a16"
    assert check(tiny(), FP8).scheme == "fp8a16"
    assert check(tiny(), FP8 | {"activations": "static"}).scheme == "fp8"
    assert refused(tiny(), RTN | {"bits": 8}) == ("packing_unsupported", "/0/bits")
    assert refused(tiny(), RTN | {"group_size": 16}) == ("packing_unsupported", "/0/group_size")
    assert refused(tiny(), SMOOTH | {"bits": 4}) == ("packing_unsupported", "/0/bits")
    assert refused(tiny(), SMOOTH | {"activation_bits": 4}) == ("packing_unsupported", "/0/activation_bits")


def test_without_a_vllm_beside_only_what_nobody_serves_is_refused(tiny: Tiny, on: Callable[..., None]) -> None:
    on("cpu", "cuda")
    check(tiny(), RTN | {"bits": 8, "symmetric": True})
    check(tiny(), SMOOTH | {"bits": 4})
    assert refused(tiny(), RTN | {"bits": 3}) == ("packing_unsupported", "/0/bits")


def test_the_installed_vllm_tells_the_device() -> None:
    assert rules.served_devices() in {("cpu",), ("cuda",)}


def test_dimensions_that_the_cpu_kernels_do_not_take(tiny: Tiny, on: Callable[..., None]) -> None:
    on("cpu")
    folder = tiny("llama", intermediate_size=144)
    step = RTN | {"group_size": 16}
    assert refused(folder, step) == ("packing_unsupported", "/0/form")
    check(folder, step | {"modules": ["attention"]})
    check(folder, SMOOTH)


def test_a_mixture_of_experts_is_not_packed_and_not_calibrated(tiny: Tiny) -> None:
    assert refused(tiny("mixtral"), RTN) == ("packing_unsupported", "/0/form")
    for step in ({"type": "quantize.gptq", "bits": 4, "group_size": 32}, SMOOTH):
        assert refused(tiny("mixtral"), step) == ("recipe_not_applicable", "/0")
    check(tiny("mixtral"), {"type": "quantize.nf4", "group_size": 32}, {"type": "quantize.fp8"})


def test_nothing_changes_packed_weights_any_more(tiny: Tiny) -> None:
    prune = {"type": "prune.magnitude", "sparsity": 0.5}
    check(tiny(), prune, RTN)
    code, pointer = refused(tiny(), RTN, prune)
    assert (code, pointer) == ("recipe_not_applicable", "/1")
    check(tiny(), RTN | {"form": "simulated"}, prune)


FLOATS = {"type": "quantize.fp8", "activations": "dynamic"}


def test_activations_that_nothing_simulates(tiny: Tiny) -> None:
    step = {"type": "quantize.smoothquant", "modules": ["q_proj"]}
    assert refused(tiny(), step) == ("recipe_not_applicable", "/0/modules")
    for modules in (["q_proj"], ["gate_proj", "o_proj"], ["attention", "lm_head"], ["embed_tokens"]):
        step = FLOATS | {"modules": modules}
        assert refused(tiny(), step) == ("recipe_not_applicable", "/0/modules")
        check(tiny(), step | {"activations": "none"})
    assert refused(tiny("mixtral"), FLOATS) == ("recipe_not_applicable", "/0/modules")
    check(tiny("mixtral"), FLOATS | {"modules": ["attention"]})
    assert refused(tiny("mixtral"), FLOATS | {"activations": "static"}) == ("recipe_not_applicable", "/0")


def test_simulated_activations_are_not_quantized_twice(tiny: Tiny, on: Callable[..., None]) -> None:
    on("cpu")
    for first in ({"type": "quantize.activations", "bits": 8}, FLOATS, SMOOTH | {"form": "simulated"}):
        for second in (SMOOTH, FP8 | {"activations": "dynamic"}):
            assert refused(tiny(), first, second) == ("recipe_not_applicable", "/1")
            check(tiny(), first, second | {"form": "simulated"})
            apart = (first | {"layers": [0]}, second | {"layers": [1, 2]})  # in one model, if of other layers
            assert refused(tiny(), *apart) == ("recipe_not_applicable", "/1")
        check(tiny(), first, RTN)


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_simulated_floats_leave_a_section_for_the_engine(tiny: Tiny, kind: str) -> None:
    step = FLOATS | {"activations": kind, "layers": [0], "modules": ["mlp"]}
    made = check(tiny(), step)
    (entry,) = made.config["hemostat_simulation"]["activations"]
    assert (entry["kind"], entry["bits"], entry["dynamic"]) == ("float", 8, kind == "dynamic")
    assert sorted(entry["modules"]) == [f"model.layers.0.mlp.{name}_proj" for name in ("down", "gate", "up")]
    assert made.quantization is None
    assert "hemostat_simulation" not in check(tiny(), step | {"activations": "none"}).config


def test_simulated_smoothquant_leaves_a_section_for_the_engine(tiny: Tiny) -> None:
    made = check(tiny(), {"type": "quantize.smoothquant", "activation_bits": 4, "layers": [0], "modules": ["mlp"]})
    (entry,) = made.config["hemostat_simulation"]["activations"]
    assert (entry["bits"], entry["dynamic"]) == (4, True)
    assert sorted(entry["modules"]) == [f"model.layers.0.mlp.{kind}_proj" for kind in ("down", "gate", "up")]


def test_methods_that_look_at_activations_stay_within_the_layers(tiny: Tiny) -> None:
    step = {"type": "quantize.awq", "bits": 4, "group_size": 32, "modules": ["embed_tokens"]}
    assert refused(tiny(), step) == ("recipe_not_applicable", "/0/modules")


@pytest.mark.parametrize("kind", ["rtn", "gptq", "awq", "nf4"])
def test_groups_must_divide(tiny: Tiny, kind: str) -> None:
    step = {"type": f"quantize.{kind}", "group_size": 24} | ({} if kind == "nf4" else {"bits": 4})
    assert refused(tiny(), step) == (ErrorCode.GROUP_SIZE_MISMATCH.value, "/0/group_size")


@pytest.mark.parametrize("amx", [True, False])
def test_fixed_grids_are_refused_where_the_kernel_ignores_them(
    tiny: Tiny, on: Callable[..., None], monkeypatch: pytest.MonkeyPatch, amx: bool
) -> None:
    """On a CPU alone: CUDA's kernel takes them."""
    monkeypatch.setattr(rules, "has_amx", lambda: amx)
    on("cpu")
    step = {"type": "quantize.smoothquant", "form": "packed", "dynamic": False}
    if amx:
        assert refused(tiny(), step) == ("packing_unsupported", "/0/dynamic")
    else:
        assert check(tiny(), step).scheme == "w8a8"
    assert check(tiny(), step | {"dynamic": True}).scheme == "w8a8"
    on("cuda")
    assert check(tiny(), step).scheme == "w8a8"


@pytest.mark.parametrize(
    "step",
    [
        SMOOTH | {"dynamic": False},
        FP8 | {"activations": "static"},
        {"type": "quantize.activations", "bits": 8} | {"dynamic": False},
        {"type": "quantize.fp8", "activations": "static"},
    ],
    ids=["w8a8", "fp8", "simulated", "simulated-fp8"],
)
@pytest.mark.parametrize("context", ["linear", "ntk", "yarn"])
def test_a_longer_context_behind_grids_that_were_fixed_in_the_old_one_is_refused(
    tiny: Tiny, on: Callable[..., None], step: dict[str, Any], context: str
) -> None:
    on("cuda")
    longer = {"type": f"context.{context}", "factor": 2}
    assert refused(tiny(), step, longer) == ("recipe_not_applicable", "/1")
    assert check(tiny(), longer, step).max_position == 512


def test_a_longer_context_behind_grids_of_every_token_is_taken(tiny: Tiny, on: Callable[..., None]) -> None:
    on("cpu")
    longer = {"type": "context.linear", "factor": 2}
    for step in (SMOOTH, FP8 | {"activations": "dynamic"}, FLOATS, RTN):
        assert check(tiny(), step, longer).max_position == 512


def test_a_packed_checkpoint_that_came_with_fixed_grids_takes_no_other_context(tiny: Tiny) -> None:
    recipe = RECIPE.validate_python([{"type": "context.linear", "factor": 2}])
    inputs: dict[str, Any] = {"num_bits": 8, "type": "int"}  # without a word compressed-tensors takes them as fixed
    packed = replace(
        inspect(tiny()),
        quantization={"quant_method": "compressed-tensors", "config_groups": {"g": {"input_activations": inputs}}},
    )
    with pytest.raises(HemostatError) as caught:
        check_recipe(packed, recipe, pointer="/r")
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, "/r/0")
    assert "fixed on text" in caught.value.detail
    inputs["dynamic"] = True
    assert check_recipe(packed, recipe, pointer="/r").max_position == 512
