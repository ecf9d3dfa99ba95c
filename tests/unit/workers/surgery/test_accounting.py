"""What is told of weights after several steps: bits of what they are now, errors against what they were made of."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file

from app.models.checkpoint import inspect
from app.recipes.base import Calibrated
from app.recipes.recipe import Recipe
from tests.support.outliers import with_outliers
from tests.support.pruning import rewrite
from tests.support.tiny import make_checkpoint
from workers.surgery.account import bias_change_of, norm_change_of
from workers.surgery.calibration_text import CalibrationText
from workers.surgery.manifest import Manifest, TensorChange
from workers.surgery.quantize_rtn import quantize
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

Tiny = Callable[..., Path]
RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
RTN = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
SVD = {"type": "lowrank.svd", "rank": 8}
SMALL = {"calibration_windows": 4, "calibration_window": 16}
UP = "model.layers.{}.mlp.up_proj.weight"


def text(_: Calibrated) -> CalibrationText:
    tokens_NL = torch.randint(2, 300, (4, 16), generator=torch.Generator().manual_seed(0))
    return CalibrationText(tokens_NL, "0" * 64, documents=4, asked=4)


@pytest.fixture
def manifest_of(tiny: Tiny, tmp_path: Path) -> Callable[..., Manifest]:
    store = CheckpointStore(tmp_path / "store", 10**9)

    def make(*steps: dict[str, Any], other: Path | None = None) -> Manifest:
        recipe = RECIPE.validate_python(steps)
        with apply(inspect(tiny()), recipe, store=store, calibration=text, others=lambda _: other) as modified:
            return modified.manifest

    return make


def told(manifest: Manifest) -> dict[str, TensorChange]:
    return {change.name: change for change in manifest.tensors}


@pytest.mark.parametrize(
    "step",
    [
        {"type": "prune.layers", "layers": [0]},
        {"type": "extend.duplicate", "layers": [0]},
    ],
)
@pytest.mark.parametrize("later", [RTN, RTN | {"form": "packed"}, {"type": "prune.wanda", "sparsity": 0.5} | SMALL])
def test_a_layer_with_another_number_is_compared_with_itself(
    tiny: Tiny, manifest_of: Callable[..., Manifest], step: dict[str, Any], later: dict[str, Any]
) -> None:
    shift = -1 if step["type"] == "prune.layers" else 1
    alone, after = told(manifest_of(later)), told(manifest_of(step, later))
    for layer in (1, 2):
        one, same = alone[UP.format(layer)], after[UP.format(layer + shift)]
        assert same.original_norm == one.original_norm
        if later["type"] == "quantize.rtn":  # what weights alone decide is the same
            assert same.reconstruction_error == one.reconstruction_error
        assert same.reconstruction_error is not None
        assert same.reconstruction_error < 0.6  # two random layers are further from each other than 1


def test_an_inserted_layer_is_compared_with_nothing(manifest_of: Callable[..., Manifest]) -> None:
    for step in ("extend.identity", "extend.interpolate"):
        manifest = manifest_of({"type": step, "layers": [0]}, {"type": "prune.layers", "layers": [0]}, RTN)
        changes = told(manifest)
        assert changes["model.layers.0.mlp.down_proj.weight"].reconstruction_error is None
        assert manifest.origins["model.layers.0.mlp.down_proj.weight"] is None
        assert changes[UP.format(1)].original_norm == told(manifest_of(RTN))[UP.format(1)].original_norm


def test_what_was_made_smaller_and_larger_again_is_compared_with_nothing(manifest_of: Callable[..., Manifest]) -> None:
    manifest = manifest_of({"type": "prune.channels", "ratio": 0.5} | SMALL, {"type": "extend.width", "channels": 2})
    change = told(manifest)[UP.format(0)]
    assert change.shape == (128, 64)
    assert change.reconstruction_error is None


def test_what_earlier_steps_did_goes_with_an_inserted_layer(manifest_of: Callable[..., Manifest]) -> None:
    changes = told(manifest_of(RTN | {"layers": [1]}, {"type": "extend.identity", "layers": [1]}))
    name = "model.layers.{}.mlp.down_proj.weight"
    assert changes[name.format(1)].bits_per_weight == changes[name.format(2)].bits_per_weight == 4 + 20 / 32
    assert name.format(0) not in changes


def test_parts_that_go_leave_the_scales_of_their_groups(manifest_of: Callable[..., Manifest]) -> None:
    """64 of the 128 inputs of `down_proj` stay, in the four groups of each row; rows that go take theirs along."""
    changes = told(manifest_of(RTN, {"type": "prune.channels", "ratio": 0.5} | SMALL))
    down, up = changes["model.layers.0.mlp.down_proj.weight"], changes[UP.format(0)]
    assert (down.shape, down.bits_per_weight) == ((64, 64), 4 + 4 * 20 / 64)
    assert down.nominal_bytes == 64 * (64 * 4 + 4 * 20) / 8
    assert (up.shape, up.bits_per_weight) == ((64, 64), 4 + 20 / 32)


def test_steps_of_stages_before_are_told_with_the_last_ones(manifest_of: Callable[..., Manifest]) -> None:
    """Of weights, and of vectors beside them."""
    # the second step looks at text, and so is a stage of its own
    made = manifest_of(RTN, {"type": "quantize.awq", "bits": 4, "group_size": 32, **SMALL})
    assert {len(made.steps), *(one.steps for one in made.tensors)} == {2, (0, 1)}
    gain = torch.ones(4)
    norm = norm_change_of("norm", gain, steps=(0,), original=gain)
    assert norm_change_of("norm", 2 * gain, steps=(2,), original=gain, before=norm).steps == (0, 2)
    bias = bias_change_of("bias", gain, steps=(0,), original=gain)
    assert bias_change_of("bias", 2 * gain, steps=(2,), original=gain, before=bias).steps == (0, 2)


@pytest.mark.parametrize(
    "step",
    [
        {"type": "merge.linear", "other": "other"},
        {"type": "extend.width", "channels": 2, "noise": 0.1},
        {"type": "prune.sparsegpt", "sparsity": 0.5} | SMALL,
    ],
)
def test_what_leaves_its_grid_takes_all_its_bits(
    tiny: Tiny, manifest_of: Callable[..., Manifest], step: dict[str, Any]
) -> None:
    assert told(manifest_of(RTN, step, other=tiny()))[UP.format(0)].bits_per_weight == 16


@pytest.mark.parametrize(
    "step", [{"type": "prune.magnitude", "sparsity": 0.5}, {"type": "prune.wanda", "sparsity": 0.5} | SMALL]
)
def test_what_stays_on_its_grid_keeps_its_bits_and_two_factors_do_not(
    manifest_of: Callable[..., Manifest], step: dict[str, Any]
) -> None:
    assert told(manifest_of(RTN, step))[UP.format(0)].bits_per_weight == 4 + 20 / 32
    factored = told(manifest_of(SVD))[UP.format(0)]
    assert factored.bits_per_weight == 16 * 8 * (128 + 64) / (128 * 64)
    assert factored.in_parts
    pruned = told(manifest_of(SVD, step))[UP.format(0)]
    assert pruned.bits_per_weight == 16
    assert not pruned.in_parts


def test_the_error_is_that_of_the_weights_that_lie_there(tiny: Tiny, manifest_of: Callable[..., Manifest]) -> None:
    changes = told(manifest_of({"type": "prune.layers", "layers": [0]}, RTN))
    before = load_file(tiny() / "model.safetensors")[UP.format(2)]
    after = quantize(before, bits=4, group_size=32, symmetric=False)
    expected = float((after.double() - before.double()).norm() / before.double().norm())
    assert changes[UP.format(1)].reconstruction_error == pytest.approx(expected, rel=1e-9)


# ---- biases


@pytest.fixture
def biased(tmp_path: Path) -> Callable[[int], Path]:
    """Tiny models whose biases are not 0, as trained ones have them."""

    def make(seed: int) -> Path:
        def change(tensors: dict[str, torch.Tensor]) -> None:
            draw = torch.Generator().manual_seed(seed)
            for name, tensor in tensors.items():
                if name.endswith(".bias"):
                    tensor.copy_(torch.randn(tensor.shape, generator=draw))

        return rewrite(make_checkpoint(tmp_path / f"biased-{seed}", "qwen2"), change)

    return make


BIAS = "model.layers.{}.self_attn.v_proj.bias"


def test_the_manifest_tells_how_far_each_bias_is_from_the_unmodified_models(
    biased: Callable[[int], Path], tmp_path: Path
) -> None:
    """‖b − b'‖ over ‖b‖ in float64, of what it was made of where layers have other numbers; no total counts it."""
    source, other = biased(0), biased(1)
    steps = [{"type": "merge.linear", "other": "other", "weight": 0.3}, {"type": "prune.layers", "layers": [0]}, RTN]
    store = CheckpointStore(tmp_path / "store", 10**9)
    with apply(inspect(source), RECIPE.validate_python(steps), store=store, others=lambda _: other) as modified:
        after, found = load_file(modified.path / "model.safetensors"), modified.manifest.biases
    before = load_file(source / "model.safetensors")
    assert [bias.name for bias in found] == [
        f"model.layers.{layer}.self_attn.{part}.bias" for layer in (0, 1) for part in ("k_proj", "q_proj", "v_proj")
    ]
    for bias in found:
        layer = int(bias.name.split(".")[2])
        made_of = before[bias.name.replace(f"layers.{layer}", f"layers.{layer + 1}")].double()
        far = float((after[bias.name].double() - made_of).norm() / made_of.norm())
        assert bias.reconstruction_error == pytest.approx(far, rel=1e-6)
        assert (bias.elements, bias.steps, far > 0.2) == (len(made_of), (0,), True)


def test_a_bias_of_scaled_channels_is_what_it_stands_for_and_one_that_had_none_is_compared_with_nothing(
    biased: Callable[[int], Path], tmp_path: Path
) -> None:
    store = CheckpointStore(tmp_path / "store", 10**9)

    def made(source: Path, step: dict[str, Any]) -> tuple[dict[str, float | None], dict[str, torch.Tensor]]:
        recipe = RECIPE.validate_python([step | SMALL])
        with apply(inspect(source), recipe, store=store, calibration=text) as modified:
            told = {bias.name: bias.reconstruction_error for bias in modified.manifest.biases}
            return told, load_file(modified.path / "model.safetensors")

    folded, after = made(biased(0), SCALING[0])
    before = load_file(biased(0) / "model.safetensors")
    assert folded.keys() == {BIAS.format(layer) for layer in range(3)}
    assert all(error is not None and error < 0.01 for error in folded.values())
    assert any(float((after[name] - before[name]).norm() / before[name].norm()) > 0.05 for name in folded)
    plain = make_checkpoint(tmp_path / "plain", "qwen2", num_attention_heads=4, num_key_value_heads=2, head_dim=16)
    lost, _ = made(plain, {"type": "prune.heads", "count": 2})
    assert {name.split(".")[-2] for name in lost} == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert set(lost.values()) == {None}


# ---- channels that were scaled


@pytest.fixture
def error_of(tmp_path: Path) -> Callable[..., float]:
    source = with_outliers(make_checkpoint(tmp_path / "outliers"))
    store = CheckpointStore(tmp_path / "store", 10**9)

    def of(*steps: dict[str, Any]) -> float:
        with apply(inspect(source), RECIPE.validate_python(steps), store=store, calibration=text) as modified:
            assert modified.manifest.reconstruction_error is not None
            return modified.manifest.reconstruction_error

    return of


SCALING = [
    {"type": "quantize.awq", "bits": 8, "group_size": 32},
    {"type": "quantize.smoothquant", "bits": 8},
    {"type": "quantize.dynamic", "bits": 8, "group_size": 32, "tuning_steps": 0},
]


@pytest.mark.parametrize("step", SCALING, ids=lambda step: str(step["type"]))
def test_scaled_channels_are_no_error(error_of: Callable[..., float], step: dict[str, Any]) -> None:
    rounding = error_of({"type": "quantize.rtn", "bits": 8, "group_size": 32})
    assert error_of(step | SMALL) < 4 * rounding


@pytest.mark.parametrize("step", SCALING[:2], ids=lambda step: str(step["type"]))
@pytest.mark.parametrize(
    "later", [{"type": "prune.wanda", "sparsity": 0.02} | SMALL, {"type": "quantize.rtn", "bits": 8, "group_size": 32}]
)
def test_a_later_step_does_not_take_scaled_channels_for_an_error(
    error_of: Callable[..., float], step: dict[str, Any], later: dict[str, Any]
) -> None:
    assert error_of(step | SMALL, later) < error_of(step | SMALL) + 2 * error_of(later)
