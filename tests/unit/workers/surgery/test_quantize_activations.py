"""`quantize.activations`: weights untouched, a section in config.json, static grids from the text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.simulation import Simulation
from app.models.checkpoint import inspect
from app.models.simulation import section_in
from app.recipes.base import Calibrated
from app.recipes.recipe import Recipe
from tests.support.attention import attention_of
from tests.support.copies import Copy
from tests.support.tiny import VOCABULARY
from workers.surgery.calibration_text import CalibrationText
from workers.surgery.modified import Modified
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

Tiny = Callable[..., Path]
RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
A8: dict[str, Any] = {"type": "quantize.activations", "bits": 8}
RTN: dict[str, Any] = {"type": "quantize.rtn", "bits": 8, "group_size": None, "symmetric": True}


def calibration(step: Calibrated) -> CalibrationText:
    tokens_NL = torch.randint(0, VOCABULARY, (4, 32), generator=torch.Generator().manual_seed(step.seed))
    return CalibrationText(tokens_NL, f"text {step.seed}", 4, 4)


def operate(folder: Path, tmp_path: Path, *steps: dict[str, Any]) -> Modified:
    store = CheckpointStore(tmp_path / "store", 10**9)
    return apply(inspect(folder), RECIPE.validate_python(steps), store=store, calibration=calibration)


def section(modified: Modified) -> Simulation:
    found = section_in(inspect(modified.path).config)
    assert found is not None
    return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_weights_stay_and_no_tensor_is_listed_as_changed(tiny: Tiny, tmp_path: Path, kind: str) -> None:
    with operate(tiny(kind), tmp_path, A8) as modified:
        before, after = weights(tiny(kind)), weights(modified.path)
        assert before.keys() == after.keys()
        assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
        manifest = modified.manifest
        assert (manifest.tensors, manifest.scheme) == ((), "simulated")
        assert manifest.steps[0].figures == {"activation_bits": 8.0, "linear_layers": 21.0}
        entry = section(modified).activations[0]
        assert (entry.bits, entry.dynamic, entry.symmetric, entry.scales) == (8, True, True, None)
        assert len(entry.modules) == 21


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2"])
def test_static_grids_hold_what_transformers_sees_on_the_text(
    tiny: Tiny, tmp_path: Path, kind: str, symmetric: bool
) -> None:
    with operate(tiny(kind), tmp_path, A8 | {"dynamic": False, "symmetric": symmetric, "layers": [0, 2]}) as modified:
        (entry,) = section(modified).activations
    model = AutoModelForCausalLM.from_pretrained(
        tiny(kind), dtype=torch.bfloat16, attn_implementation=attention_of(tiny(kind))
    )
    seen: dict[str, tuple[float, float]] = {}

    def look(name: str) -> Callable[..., None]:
        def hook(_: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            seen[name] = (float(args[0].min()), float(args[0].max()))

        return hook

    for name, module in model.named_modules():
        if name in entry.modules:
            module.register_forward_pre_hook(look(name))
    with torch.no_grad():
        model(input_ids=calibration(Calibrated(type="test")).tokens_NL)
    assert entry.scales is not None
    assert seen.keys() == entry.scales.keys()
    assert {name.split(".")[2] for name in seen} == {"0", "2"}
    for name, (low, high) in seen.items():
        scale, zero = entry.scales[name]
        if symmetric:
            assert [scale, zero] == pytest.approx([max(-low, high) / 127, 0])
        else:
            assert scale == pytest.approx((max(high, 0) - min(low, 0)) / 255)
            assert zero == pytest.approx(-min(low, 0) / scale, abs=0.5001)


def test_with_weights_in_either_order_it_is_the_same_checkpoint(tiny: Tiny, tmp_path: Path) -> None:
    with operate(tiny("llama"), tmp_path, RTN, A8) as one, operate(tiny("llama"), tmp_path, A8, RTN) as other:
        assert one.fingerprint == other.fingerprint
        assert len(one.manifest.tensors) == len(other.manifest.tensors) == 21
        assert all(change.bits_per_weight < 9 for change in one.manifest.tensors)


def test_static_grids_look_at_the_weights_as_the_steps_before_left_them(tiny: Tiny, tmp_path: Path) -> None:
    static, coarse = A8 | {"dynamic": False}, RTN | {"bits": 3}
    with operate(tiny("llama"), tmp_path, coarse, static) as one, operate(tiny("llama"), tmp_path, static) as other:
        first, second = section(one).activations[0].scales, section(other).activations[0].scales
    assert first is not None
    assert second is not None
    assert first["model.layers.0.self_attn.q_proj"] == second["model.layers.0.self_attn.q_proj"]
    assert first["model.layers.1.self_attn.q_proj"] != second["model.layers.1.self_attn.q_proj"]


def test_a_step_that_looks_at_text_says_that_nothing_was_simulated_there(tiny: Tiny, tmp_path: Path) -> None:
    static = A8 | {"dynamic": False}
    with operate(tiny("llama"), tmp_path, A8, static) as one, operate(tiny("llama"), tmp_path, static) as other:
        assert "without what the steps before quantize" in one.manifest.steps[1].warnings[0]
        assert other.manifest.steps[0].warnings == ()


def test_dynamic_grids_need_no_text(tiny: Tiny, tmp_path: Path) -> None:
    with apply(
        inspect(tiny("llama")), RECIPE.validate_python([A8]), store=CheckpointStore(tmp_path / "s", 10**9)
    ) as made:
        assert made.manifest.steps[0].calibration_tokens is None


def test_two_steps_share_the_section(tiny: Tiny, tmp_path: Path) -> None:
    kv = {"type": "quantize.kv_cache", "v_bits": 4}
    with operate(tiny("llama"), tmp_path, A8, A8 | {"bits": 4, "modules": ["mlp"]}, kv) as modified:
        found = section(modified)
        assert sorted((one.bits, len(one.modules)) for one in found.activations) == [(4, 9), (8, 12)]
        assert found.simulated_kv[0].v_bits == 4
        assert modified.manifest.steps[2].figures["k_bits"] == 16


def test_transformers_loads_the_checkpoint_and_simulates_nothing(tiny: Tiny, tmp_path: Path) -> None:
    tokens_NL = calibration(Calibrated(type="test")).tokens_NL
    with operate(tiny("llama"), tmp_path, A8) as modified, torch.no_grad():
        one = AutoModelForCausalLM.from_pretrained(modified.path)(input_ids=tokens_NL).logits
    with torch.no_grad():
        other = AutoModelForCausalLM.from_pretrained(tiny("llama"))(input_ids=tokens_NL).logits
    assert torch.equal(one, other)


def test_a_model_that_overflows_is_told(copy: Copy, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = copy("llama")
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    tensors["model.layers.2.mlp.up_proj.weight"].fill_(3e38)
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(HemostatError) as caught:
        operate(folder, tmp_path, A8 | {"dynamic": False})
    assert caught.value.code is ErrorCode.ACTIVATIONS_NOT_FINITE
