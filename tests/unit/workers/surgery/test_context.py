"""Rotary frequencies that transformers computes from the new configuration, against the published formulas."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import inspect
from app.models.steps import check_recipe
from app.recipes.recipe import Recipe
from tests.support.copies import edit_json
from workers.surgery.modified import Modified
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

Tiny = Callable[..., Path]
RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
DIM, BASE, POSITIONS = 32, 10000.0, 256
PLAIN = BASE ** (-torch.arange(0, DIM, 2, dtype=torch.float64) / DIM)


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "store", 10**9)


def operate(folder: Path, store: CheckpointStore, *steps: dict[str, Any]) -> Modified:
    return apply(inspect(folder), RECIPE.validate_python(steps), store=store)


def rotary(folder: Path) -> tuple[torch.Tensor, float]:
    """(frequencies, scale of attention) that transformers turns by."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.model.rotary_emb.inv_freq.double(), float(model.model.rotary_emb.attention_scaling)


def test_linear_divides_every_frequency(tiny: Tiny, store: CheckpointStore) -> None:
    with operate(tiny(), store, {"type": "context.linear", "factor": 4}) as modified:
        found, scale = rotary(modified.path)
        assert inspect(modified.path).max_position == 4 * POSITIONS
    torch.testing.assert_close(found, PLAIN / 4, rtol=1e-5, atol=0)
    assert scale == 1


def test_ntk_keeps_the_highest_and_divides_the_lowest_frequency(tiny: Tiny, store: CheckpointStore) -> None:
    with operate(tiny(), store, {"type": "context.ntk", "factor": 4}) as modified:
        found, _ = rotary(modified.path)
    assert float(found[0] / PLAIN[0]) == pytest.approx(1, rel=1e-6)
    assert float(found[-1] / PLAIN[-1]) == pytest.approx(1 / 4, rel=1e-5)
    base = BASE * 4 ** (DIM / (DIM - 2))
    torch.testing.assert_close(found, base ** (-torch.arange(0, DIM, 2).double() / DIM), rtol=1e-5, atol=0)


def test_yarn_is_the_papers_ramp(tiny: Tiny, store: CheckpointStore) -> None:
    with operate(tiny(), store, {"type": "context.yarn", "factor": 4, "beta_fast": 8, "beta_slow": 2}) as modified:
        found, scale = rotary(modified.path)

    def turning(times: float) -> float:
        return DIM * math.log(POSITIONS / (times * 2 * math.pi)) / (2 * math.log(BASE))

    low, high = max(math.floor(turning(8)), 0), min(math.ceil(turning(2)), DIM - 1)
    ramp = ((torch.arange(DIM // 2).double() - low) / (high - low)).clamp(0, 1)
    torch.testing.assert_close(found, PLAIN / 4 * ramp + PLAIN * (1 - ramp), rtol=1e-5, atol=0)
    assert scale == pytest.approx(0.1 * math.log(4) + 1)


@pytest.mark.parametrize("kind", ["qwen2", "gemma2"])
def test_other_architectures_turn_by_the_same_formulas(tiny: Tiny, store: CheckpointStore, kind: str) -> None:
    plain, _ = rotary(tiny(kind))

    def scaled(way: str) -> tuple[torch.Tensor, float]:
        with operate(tiny(kind), store, {"type": f"context.{way}", "factor": 4}) as modified:
            assert inspect(modified.path).max_position == 4 * POSITIONS
            found, scale = rotary(modified.path)
            return found / plain, scale

    linear, _ = scaled("linear")
    torch.testing.assert_close(linear, torch.full_like(linear, 1 / 4), rtol=1e-5, atol=0)
    ntk, _ = scaled("ntk")
    half = DIM // 2
    torch.testing.assert_close(ntk, 4.0 ** (-torch.arange(half).double() / (half - 1)), rtol=1e-5, atol=0)
    yarn, scale = scaled("yarn")
    assert (float(yarn[0]), float(yarn[-1]), scale) == pytest.approx((1, 1 / 4, 0.1 * math.log(4) + 1), rel=1e-5)
    assert bool((yarn.diff() <= 1e-6).all())


def test_no_weight_changes(tiny: Tiny, store: CheckpointStore) -> None:
    with operate(tiny(), store, {"type": "context.yarn", "factor": 2}) as modified:
        assert modified.manifest.tensors == ()
        assert modified.manifest.bits_per_weight is None
        before, after = (load_file(folder / "model.safetensors") for folder in (tiny(), modified.path))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_older_configuration_is_read_too(tiny: Tiny, store: CheckpointStore, tmp_path: Path) -> None:
    folder = tmp_path / "older"
    shutil.copytree(tiny(), folder)
    edit_json(folder / "config.json", rope_parameters=None, rope_theta=BASE)
    with operate(folder, store, {"type": "context.linear", "factor": 2}) as modified:
        found, _ = rotary(modified.path)
    torch.testing.assert_close(found, PLAIN / 2, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("steps", "pointer"),
    [
        ([{"type": "context.linear", "factor": 2}, {"type": "context.ntk", "factor": 2}], "/r/1"),
        ([{"type": "context.ntk", "factor": 2}, {"type": "context.yarn", "factor": 2}], "/r/1"),
        ([{"type": "context.ntk", "factor": 2}, {"type": "context.ntk", "factor": 2}], "/r/1"),
        ([{"type": "context.ntk", "factor": 2, "layers": [0]}], "/r/0/layers"),
        ([{"type": "context.yarn", "factor": 2, "modules": ["attention"]}], "/r/0/modules"),
    ],
)
def test_what_cannot_be_extended_is_refused(tiny: Tiny, steps: list[dict[str, Any]], pointer: str) -> None:
    with pytest.raises(HemostatError) as caught:
        check_recipe(inspect(tiny()), RECIPE.validate_python(steps), pointer="/r")
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, pointer)


@pytest.mark.parametrize("way", ["linear", "yarn"])
def test_a_scaling_that_no_engine_would_load_is_refused(tiny: Tiny, store: CheckpointStore, way: str) -> None:
    folder = tiny("llama", model_type="phi3")
    with pytest.raises(HemostatError, match="Phi3ForCausalLM takes no rotary scaling but its own") as caught:
        recipe = RECIPE.validate_python([{"type": f"context.{way}", "factor": 2}])
        check_recipe(inspect(folder), recipe, pointer="/r")
    assert (caught.value.code, caught.value.pointer) == (ErrorCode.RECIPE_NOT_APPLICABLE, "/r/0/type")
    assert "context.ntk" in caught.value.hint
    plain, _ = rotary(folder)
    with operate(folder, store, {"type": "context.ntk", "factor": 2}) as modified:
        found, _ = rotary(modified.path)
    assert float(found[-1] / plain[-1]) == pytest.approx(1 / 2, rel=1e-5)


@pytest.mark.parametrize("betas", [{"beta_fast": 1, "beta_slow": 32}, {"beta_fast": 0.5}, {"beta_slow": 33}])
def test_a_ramp_that_falls_is_refused(betas: dict[str, float]) -> None:
    """transformers would keep the low frequencies and divide the high ones, with no more than a log line."""
    with pytest.raises(ValidationError, match="give a beta_fast of at least beta_slow"):
        RECIPE.validate_python([{"type": "context.yarn", "factor": 2} | betas])


def test_weights_can_be_changed_before_and_after(tiny: Tiny, store: CheckpointStore) -> None:
    rtn = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
    for steps in ([rtn, {"type": "context.ntk", "factor": 2}], [{"type": "context.ntk", "factor": 2}, rtn]):
        with operate(tiny(), store, *steps) as modified:
            assert inspect(modified.path).max_position == 512
            assert modified.manifest.bits_per_weight == 4 + 20 / 32
