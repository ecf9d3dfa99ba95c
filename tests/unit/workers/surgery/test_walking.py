"""What every step that walks through a model shares: its dtype, and what it does about activations without end."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import fingerprint, inspect
from app.models.steps import check_recipe
from app.recipes.base import Calibrated
from app.recipes.recipe import STEPS as TYPES
from app.recipes.recipe import Recipe
from tests.support.disk import files_of_at_most
from tests.support.memory import anonymous_bytes, give_back_what_is_free
from workers.surgery.blockwise.skeleton import Skeleton
from workers.surgery.calibration_text import CalibrationText
from workers.surgery.reading import open_tensors
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

Copy = Callable[..., Path]
RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
STEPS: list[dict[str, Any]] = [
    {"type": "quantize.gptq", "bits": 4, "group_size": 32},
    {"type": "quantize.awq", "bits": 4, "group_size": 32},
    {"type": "quantize.smoothquant", "dynamic": False},
    {"type": "quantize.activations", "bits": 8, "dynamic": False},
    {"type": "quantize.fp8", "activations": "static"},
    {"type": "prune.wanda", "sparsity": 0.5},
    {"type": "prune.ria", "sparsity": 0.5, "allocation": "owl"},
    {"type": "prune.sparsegpt", "sparsity": 0.5},
    {"type": "prune.channels", "ratio": 0.5},
    {"type": "prune.layers", "count": 1},
    {"type": "lowrank.asvd", "rank": 4},
    {"type": "lowrank.svdllm", "rank": 4},
    {"type": "norm.tweak", "steps": 1},
    {"type": "prune.magnitude", "sparsity": 0.5, "allocation": "owl"},
    {"type": "quantize.dynamic", "bits": 4, "group_size": 32},
    {"type": "prune.gradient", "sparsity": 0.5, "passes": 1, "reconstruct_epochs": 1},
    {"type": "repair.lowrank", "rank": 4, "distill_steps": 1},
]

# What a layer without end does to these is shown beside them: heads are told by what comes before that layer's MLP.
ELSEWHERE = {"prune.heads"}


def text(_: Calibrated) -> CalibrationText:
    tokens_NL = torch.randint(2, 300, (4, 16), generator=torch.Generator().manual_seed(0))
    return CalibrationText(tokens_NL, "0" * 64, documents=4, asked=4)


def edit(folder: Path, **changes: torch.Tensor) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors.update({name.replace("__", "."): tensor for name, tensor in changes.items()})
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_no_type_that_reads_text_is_left_out() -> None:
    looking = {name for name, kind in TYPES.items() if issubclass(kind, Calibrated)}
    shown = {step["type"] for step in STEPS}
    assert shown | ELSEWHERE == looking
    assert not shown & ELSEWHERE


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step["type"])
def test_inputs_without_end_are_refused_also_in_the_last_layer(
    copy: Copy, tmp_path: Path, step: dict[str, Any]
) -> None:
    folder = copy()
    # in the last layer, where no later block would be given what is not finite
    edit(folder, model__layers__2__post_attention_layernorm__weight=torch.full((64,), 3e38, dtype=torch.bfloat16))
    store = CheckpointStore(tmp_path / "store", 10**9)
    with pytest.raises(HemostatError) as caught:
        apply(inspect(folder), RECIPE.validate_python([step]), store=store, calibration=text)
    assert caught.value.code == ErrorCode.ACTIVATIONS_NOT_FINITE
    assert "layers.2" in caught.value.detail or "layer 2" in caught.value.detail
    assert caught.value.pointer == "/candidate/recipe/0"
    assert caught.value.hint
    assert store.keys == ()


def test_text_that_is_too_short_is_blamed_on_the_step(copy: Copy, tmp_path: Path) -> None:
    def none(_: Calibrated) -> CalibrationText:
        raise HemostatError(ErrorCode.CALIBRATION_TOO_SHORT, "too short", hint="more")

    steps = [{"type": "quantize.rtn", "bits": 4, "group_size": 32}, STEPS[0]]
    with pytest.raises(HemostatError) as caught:
        apply(
            inspect(copy()),
            RECIPE.validate_python(steps),
            store=CheckpointStore(tmp_path / "store", 10**9),
            calibration=none,
        )
    assert caught.value.pointer == "/candidate/recipe/1/calibration"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_model_is_walked_through_in_its_own_dtype(copy: Copy, dtype: torch.dtype) -> None:
    folder = copy()
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    info = inspect(folder)
    with open_tensors(info) as reader:
        skeleton = Skeleton(info, reader.read)
        assert skeleton.dtype == dtype
        assert all(parameter.dtype == dtype for parameter in skeleton.block(0).parameters())


@pytest.mark.parametrize(
    "step",
    [
        {"type": "prune.layers", "layers": [1]},
        {"type": "extend.duplicate", "layers": [0]},
    ],
)
def test_a_step_that_aligns_blocks_is_refused_before_any_work_where_blocks_are_others(
    copy: Copy, step: dict[str, Any]
) -> None:
    info = inspect(copy())
    with pytest.raises(HemostatError) as caught:
        check_recipe(info, RECIPE.validate_python([step, {"type": "norm.tweak"}]), pointer="/r")
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, "/r/1")


@pytest.mark.parametrize("step", [{"type": "norm.tweak"}, {"type": "repair.lowrank", "rank": 4}])
def test_a_reference_that_blocks_cannot_be_aligned_with_is_refused_before_any_work(
    copy: Copy, step: dict[str, Any]
) -> None:
    info, wide = inspect(copy()), inspect(copy(name="wide", hidden_size=128))
    assert check_recipe(info, RECIPE.validate_python([step]), pointer="/r", reference=info) == info
    with pytest.raises(HemostatError) as caught:
        check_recipe(info, RECIPE.validate_python([step]), pointer="/r", reference=wide)
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, "/r/0")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("step", "size"),
    [
        ({"type": "prune.wanda", "sparsity": 0.5}, 6_000),  # activations take 8,192
        ({"type": "norm.scale", "factor": 2.0}, 150),  # a norm's weight takes more with its header
        ({"type": "extend.identity"}, 200_000),  # the whole checkpoint
    ],
)
def test_a_full_disk_is_said_so_wherever_it_fills_up(
    copy: Copy, tmp_path: Path, step: dict[str, Any], size: int
) -> None:
    info, store = inspect(copy()), CheckpointStore(tmp_path / "store", 10**9)
    recipe = RECIPE.validate_python([step])
    with files_of_at_most(10**9):
        fingerprint(info.path)
    with pytest.raises(HemostatError) as caught, files_of_at_most(size):
        apply(info, recipe, store=store, calibration=text)
    assert caught.value.code is ErrorCode.DISK_FULL
    assert store.keys == ()
    assert not list(store.root.glob(".staging-*"))


def test_less_text_than_asked_for_and_windows_beyond_the_context_are_told(copy: Copy, tmp_path: Path) -> None:
    def long(_: Calibrated) -> CalibrationText:
        return CalibrationText(torch.full((1, 300), 5), "0" * 64, documents=1, asked=4)

    recipe = RECIPE.validate_python([{"type": "prune.wanda", "sparsity": 0.5}])
    store = CheckpointStore(tmp_path / "store", 10**9)
    with apply(inspect(copy()), recipe, store=store, calibration=long) as modified:
        (record,) = modified.manifest.steps
    assert any("has 1 window of 300 tokens, 4 were asked for" in warning for warning in record.warnings)
    assert any("context of 256" in warning for warning in record.warnings)


@pytest.mark.parametrize(
    "step",
    [
        {"type": "quantize.gptq", "bits": 4, "group_size": 32},
        {"type": "quantize.awq", "bits": 4, "group_size": 32},
        {"type": "prune.sparsegpt", "sparsity": 0.5},
    ],
)
def test_work_on_one_matrix_asks_often_whether_to_go_on(copy: Copy, tmp_path: Path, step: dict[str, Any]) -> None:
    info = inspect(copy(intermediate_size=512))

    def calls_of(layers: list[int]) -> int:
        calls = 0

        def count() -> None:
            nonlocal calls
            calls += 1

        chosen = RECIPE.validate_python([step | {"modules": ["down_proj"], "layers": layers}])
        store = CheckpointStore(tmp_path / str(layers), 10**9)
        apply(info, chosen, store=store, calibration=text, check_cancelled=count).release()
        return calls

    # one more matrix of 512 inputs: a check for each block of columns, or each candidate, not one for the matrix
    assert calls_of([0, 1]) - calls_of([0]) >= 5


@pytest.mark.parametrize(
    "step",
    [
        {"type": "quantize.gptq", "bits": 4, "group_size": 32},
        {"type": "quantize.awq", "bits": 4, "group_size": 32},
        {"type": "quantize.smoothquant", "dynamic": False},
        {"type": "quantize.dynamic", "bits": 4, "group_size": 32},
        {"type": "prune.wanda", "sparsity": 0.5},
        {"type": "prune.ria", "sparsity": 0.5, "allocation": "owl"},
        {"type": "prune.sparsegpt", "sparsity": 0.5},
        {"type": "prune.channels", "ratio": 0.5},
        {"type": "prune.gradient", "sparsity": 0.5, "passes": 1, "reconstruct_epochs": 1},
        {"type": "lowrank.asvd", "rank": 4},
        {"type": "lowrank.svdllm", "rank": 4},
        {"type": "norm.tweak", "steps": 1},
    ],
    ids=lambda step: step["type"],
)
def test_memory_holds_one_block_however_many_there_are(copy: Copy, tmp_path: Path, step: dict[str, Any]) -> None:
    """Twenty blocks more have 10 MB of weights, 20 MB in float32, and 26 MB of second moments.

    What an allocator keeps between two runs moves a peak by some megabytes, either way: blocks that are held show in
    every one of three pairs of runs, that in one or another.
    """
    wide = {"hidden_size": 128, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2}
    models = {layers: copy(name=f"deep-{layers}", num_hidden_layers=layers, **wide) for layers in (4, 24)}

    def most(layers: int) -> int:
        store = CheckpointStore(Path(tempfile.mkdtemp(dir=tmp_path)), 10**9)
        fingerprint(models[layers])  # which reads 16 MB at a time, once
        give_back_what_is_free()
        before, peak, walking = anonymous_bytes(), 0, False

        def tell(phase: str, _done: int, _total: int) -> None:
            nonlocal walking
            walking = phase != "write"

        def look() -> None:
            nonlocal peak
            if walking:
                peak = max(peak, anonymous_bytes())

        options: Any = {"store": store, "calibration": text, "progress": tell, "check_cancelled": look}
        apply(inspect(models[layers]), RECIPE.validate_python([step]), **options).release()
        return peak - before

    most(4)  # what libraries take once
    assert any(most(24) - most(4) < 7e6 for _ in range(3))


def test_what_comes_after_packing_is_told_to_come_before_it(copy: Copy) -> None:
    packed = {"type": "quantize.rtn", "bits": 4, "group_size": 32, "form": "packed"}
    info = inspect(copy())
    for later in ({"type": "prune.magnitude", "sparsity": 0.5}, {"type": "norm.drop"}):
        with pytest.raises(HemostatError, match="packed by a step before") as caught:
            check_recipe(info, RECIPE.validate_python([packed, later]), pointer="/r")
        assert (caught.value.code, caught.value.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, "/r/1")
        assert "before" in caught.value.hint


def test_two_steps_that_pack_are_not_told_to_change_places(copy: Copy) -> None:
    packed = {"type": "quantize.rtn", "bits": 4, "group_size": 32, "form": "packed"}
    recipe = RECIPE.validate_python([packed | {"modules": ["attention"]}, packed | {"modules": ["mlp"]}])
    with pytest.raises(HemostatError, match=r"packed by a step before .* packs them, too") as caught:
        check_recipe(inspect(copy()), recipe, pointer="/r")
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, "/r/1")
    assert "one step packs" in caught.value.hint


@pytest.mark.parametrize(
    "step",
    [
        {"type": "quantize.gptq", "bits": 4, "group_size": 32},
        {"type": "prune.sparsegpt", "sparsity": 0.5},
        {"type": "lowrank.svdllm", "rank": 4},
        {"type": "quantize.dynamic", "bits": 4, "group_size": 32},
        {"type": "prune.gradient", "sparsity": 0.5, "passes": 1, "reconstruct_epochs": 1},
        {"type": "repair.lowrank", "rank": 4, "block_epochs": 0, "distill_steps": 0},
    ],
    ids=lambda step: step["type"],
)
def test_less_text_than_a_matrix_takes_that_is_inverted_is_warned_of(
    copy: Copy, tmp_path: Path, step: dict[str, Any]
) -> None:
    store = CheckpointStore(tmp_path / "store", 10**9)
    with apply(inspect(copy()), RECIPE.validate_python([step]), store=store, calibration=text) as modified:
        told = " ".join(modified.manifest.steps[0].warnings)
    # 4 windows of 16 tokens, layers of 64 and 128 inputs
    assert "64 calibration tokens" in told or "too short for the second moment of 128 inputs" in told
