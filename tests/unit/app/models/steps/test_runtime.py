"""What is refused from shapes and configuration: activations, keys and values."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.simulation import SECTION
from app.models.checkpoint import CheckpointInfo, inspect
from app.models.steps import check_layers_stay, check_recipe, runtime
from app.recipes.recipe import Recipe

Tiny = Callable[..., Path]
RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
A8: dict[str, Any] = {"type": "quantize.activations", "bits": 8}
KV: dict[str, Any] = {"type": "quantize.kv_cache", "k_bits": 4}
FP8: dict[str, Any] = {"type": "quantize.kv_cache", "dtype": "fp8"}


def check(info: CheckpointInfo, *steps: dict[str, Any]) -> CheckpointInfo:
    return check_recipe(info, RECIPE.validate_python(steps), pointer="/r")


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_the_checkpoint_will_have_the_section_and_the_same_tensors(tiny: Tiny, kind: str) -> None:
    info = inspect(tiny(kind))
    made = check(info, A8 | {"dynamic": False}, KV | {"layers": [1]})
    assert made.tensors is info.tensors
    section = made.config[SECTION]
    assert len(section["activations"][0]["modules"]) == 7 * info.layers
    assert section["kv_cache"][0]["layers"] == [1]


@pytest.mark.parametrize(
    ("kind", "step", "code", "pointer"),
    [
        ("llama", A8 | {"modules": ["q_proj"]}, ErrorCode.RECIPE_NOT_APPLICABLE, "/r/0/modules"),
        ("llama", A8 | {"modules": ["gate_proj", "o_proj"]}, ErrorCode.RECIPE_NOT_APPLICABLE, "/r/0/modules"),
        ("llama", A8 | {"modules": ["attention", "lm_head"]}, ErrorCode.RECIPE_NOT_APPLICABLE, "/r/0/modules"),
        ("llama", A8 | {"modules": ["c_proj"]}, ErrorCode.UNKNOWN_MODULE, "/r/0/modules/0"),
        ("llama", A8 | {"layers": [3]}, ErrorCode.UNKNOWN_MODULE, "/r/0/layers/0"),
        ("mixtral", A8, ErrorCode.RECIPE_NOT_APPLICABLE, "/r/0/modules"),
        ("mixtral", A8 | {"modules": ["router"]}, ErrorCode.RECIPE_NOT_APPLICABLE, "/r/0/modules"),
        ("llama", KV | {"modules": ["k_proj"]}, ErrorCode.RECIPE_NOT_APPLICABLE, "/r/0/modules"),
        ("llama", KV | {"layers": [0, 3]}, ErrorCode.UNKNOWN_MODULE, "/r/0/layers/1"),
        ("llama", KV | {"group_size": 24}, ErrorCode.GROUP_SIZE_MISMATCH, "/r/0/group_size"),
        ("llama", FP8 | {"layers": [0]}, ErrorCode.RECIPE_NOT_APPLICABLE, "/r/0/layers"),
    ],
)
def test_what_no_engine_can_do_is_refused_with_the_field(
    tiny: Tiny, kind: str, step: dict[str, Any], code: ErrorCode, pointer: str
) -> None:
    with pytest.raises(HemostatError) as caught:
        check(inspect(tiny(kind)), step)
    assert (caught.value.code, caught.value.pointer) == (code, pointer)
    assert caught.value.hint


def test_the_layers_that_are_run_as_one_are_named_in_the_hint(tiny: Tiny) -> None:
    with pytest.raises(HemostatError, match="as one, with one scheme") as caught:
        check(inspect(tiny("llama")), A8 | {"modules": ["k_proj", "v_proj"]})
    assert caught.value.hint == "name all of them: q_proj, k_proj, v_proj"


@pytest.mark.parametrize("steps", [(KV, FP8), (FP8, KV)], ids=["simulated, then a dtype", "a dtype, then simulated"])
def test_keys_and_values_are_quantized_in_one_way(
    tiny: Tiny, steps: tuple[dict[str, Any], ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "has_avx512", lambda: True)  # else the dtype alone is refused
    with pytest.raises(HemostatError) as caught:
        check(inspect(tiny("llama")), *steps)
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, "/r/1")


def test_a_latent_cache_is_refused(tiny: Tiny) -> None:
    info = inspect(tiny("llama"))
    with pytest.raises(HemostatError, match="latent"):
        check(replace(info, config={**info.config, "kv_lora_rank": 64}), KV)


def test_the_cpu_builds_limits_are_told_before_a_job_is_queued(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    info = inspect(tiny("llama"))
    odd = replace(info, config={**info.config, "head_dim": 48})
    monkeypatch.setattr(runtime, "is_cpu_build", lambda: True)
    monkeypatch.setattr(runtime, "has_avx512", lambda: True)
    assert check(info, FP8).config[SECTION]["kv_cache"] == {"dtype": "fp8"}
    with pytest.raises(HemostatError, match="multiple of 32") as caught:
        check(odd, FP8)
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.PACKING_UNSUPPORTED, "/r/0/dtype")
    monkeypatch.setattr(runtime, "has_avx512", lambda: False)
    with pytest.raises(HemostatError, match="AVX-512") as caught:
        check(info, FP8)
    assert caught.value.code is ErrorCode.PACKING_UNSUPPORTED
    monkeypatch.setattr(runtime, "is_cpu_build", lambda: False)
    assert check(odd, FP8).config[SECTION]


def test_a_cache_dtype_that_the_packing_sets_is_left_to_it(tiny: Tiny) -> None:
    info = inspect(tiny("llama"))
    packed = replace(info, quantization={"kv_cache_scheme": {"num_bits": 8}})
    with pytest.raises(HemostatError, match="says itself") as caught:
        check(packed, FP8)
    assert caught.value.pointer == "/r/0/dtype"


def test_layers_keep_their_numbers_behind_a_step_that_acts_at_run_time(tiny: Tiny) -> None:
    info = inspect(tiny("llama"))
    check_layers_stay(info, info, "/r/1")
    with pytest.raises(HemostatError, match="numbers again") as caught:
        check_layers_stay(info, replace(info, layers=2), "/r/1")
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, "/r/1")


def test_a_dtype_of_the_cache_holds_for_layers_of_any_number(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "has_avx512", lambda: True)
    info, fewer = inspect(tiny("llama")), {"type": "prune.layers", "layers": [0]}
    made = check(info, FP8, fewer)
    assert (made.layers, made.config[SECTION]["kv_cache"]) == (2, {"dtype": "fp8"})
    for simulated in (KV, A8, {"type": "quantize.fp8", "activations": "dynamic"}):
        with pytest.raises(HemostatError, match="numbers again") as caught:
            check(info, simulated, fewer)
        assert caught.value.pointer == "/r/1"


RTN: dict[str, Any] = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
SMOOTH: dict[str, Any] = {"type": "quantize.smoothquant"}


FLOATS: dict[str, Any] = {"type": "quantize.fp8"}


@pytest.mark.parametrize(
    ("fixed", "free"),
    [
        (A8 | {"dynamic": False}, A8),
        (SMOOTH | {"dynamic": False}, SMOOTH),
        (FLOATS | {"activations": "static"}, FLOATS | {"activations": "dynamic"}),
    ],
)
@pytest.mark.parametrize(
    "later", [RTN, {"type": "norm.scale", "factor": 2.0}, {"type": "repair.lowrank", "rank": 4}, SMOOTH]
)
def test_nothing_changes_the_activations_that_grids_were_fixed_for(
    tiny: Tiny, fixed: dict[str, Any], free: dict[str, Any], later: dict[str, Any]
) -> None:
    info = inspect(tiny())
    with pytest.raises(HemostatError) as caught:
        check(info, fixed, KV, later)
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, "/r/2")
    assert "dynamic" in caught.value.hint
    check(info, later, fixed, KV, A8)
    check(info, free, KV, later)
    came_so = check(info, fixed)
    with pytest.raises(HemostatError):
        check(came_so, later)
