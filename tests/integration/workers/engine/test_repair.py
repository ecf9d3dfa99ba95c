"""A repair beside weights is what transformers computes in float32 with the product merged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from app.contracts.blocks import ADAPTER, REPAIR
from app.contracts.errors import ErrorCode
from app.models.adapters import WEIGHTS
from app.models.checkpoint import inspect
from app.models.steps.repair import packed_base
from tests.support.copies import edit_json
from tests.support.processor import needs_avx512
from tests.support.quantizing import RECIPE
from tests.support.refusals import refused
from tests.support.repairs import merge, random_factors, save_adapter
from tests.unit.workers.mitigation.repair.support import operate, repair
from workers.engine.pool import EnginePool
from workers.engine.repair import attach
from workers.engine.resident import ResidentEngine
from workers.engine.swap import Trust

Tiny = Callable[..., Path]
SCALE = 0.5


def states(pool: EnginePool, checkpoint: Path, windows: list[list[int]], dtype: str) -> list[torch.Tensor]:
    info = inspect(checkpoint)
    engine = ResidentEngine(pool._options(info, 128, dtype), Trust("cpu"))
    try:
        engine.load(info)
        return [state.float() for state in engine.hidden_states(windows)]
    finally:
        engine.close()


@torch.no_grad()
def oracle(model: Any, windows: list[list[int]]) -> list[torch.Tensor]:
    """Final hidden states of transformers."""
    return [model.model(input_ids=torch.tensor([window])).last_hidden_state[0] for window in windows]


def loaded(checkpoint: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")


def apart(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    found, expected = torch.cat(one), torch.cat(other)
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "granite"])
@pytest.mark.parametrize("parts", [("q_proj", "k_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), ("v_proj",)])
def test_states_are_those_of_the_merged_model(
    tiny: Tiny, pool: EnginePool, windows: list[list[int]], tmp_path: Path, kind: str, parts: tuple[str, ...]
) -> None:
    """In float32: ranks that differ, a scale, and layers that vLLM runs as one with and without a repair."""
    factors = random_factors(tiny(kind), parts=parts)
    attach(tiny(kind), save_adapter(tmp_path / "made", factors, scale=SCALE), tmp_path / "served")
    found = states(pool, tmp_path / "served", windows, "float32")
    expected = oracle(merge(loaded(tiny(kind)), factors, scale=SCALE), windows)
    assert apart(found, expected) < 1e-4
    assert apart(oracle(loaded(tiny(kind)), windows), expected) > 1e-2


@needs_avx512
@pytest.mark.parametrize(
    "step",
    [
        {"type": "quantize.rtn", "bits": 4},
        {"type": "quantize.gptq", "bits": 4},
        {"type": "quantize.gptq", "bits": 4, "symmetric": True, "act_order": False},
        {"type": "quantize.awq", "bits": 4},
        {"type": "quantize.dynamic", "bits": 4, "block_epochs": 1},
    ],
    ids=lambda step: str(step["type"]),
)
def test_packed_weights_with_the_repair_are_the_merged_checkpoint(
    tiny: Tiny, pool: EnginePool, windows: list[list[int]], tmp_path: Path, step: dict[str, Any]
) -> None:
    """In bf16, against the merged checkpoint in float32: about as near as the merged checkpoint in bf16 itself. Packed
    RTN rounds its scales to bf16 once more."""
    recipe = [step | {"group_size": 32}, repair(8)]
    base = packed_base(RECIPE.validate_python(recipe), "")
    fields = [one.model_dump(mode="json") for one in base]
    with (
        operate(tiny("llama"), tmp_path / "store", *recipe) as merged,
        operate(tiny("llama"), tmp_path / "store", *fields) as packed,
    ):
        attach(packed.path, merged.path / ADAPTER, tmp_path / "served")
        expected = oracle(loaded(merged.path), windows)
        rounding = apart(states(pool, merged.path, windows, "bfloat16"), expected)
        repaired = apart(states(pool, tmp_path / "served", windows, "bfloat16"), expected)
        without = apart(states(pool, packed.path, windows, "bfloat16"), expected)
    assert repaired < 2.5 * rounding
    assert without > 5 * repaired


def test_what_does_not_belong_together_is_refused(
    tiny: Tiny, pool: EnginePool, windows: list[list[int]], tmp_path: Path
) -> None:
    factors = random_factors(tiny("llama"), parts=("q_proj",))
    adapter = save_adapter(tmp_path / "made", factors, scale=1.0)
    attach(tiny("llama"), adapter, tmp_path / "served")
    edit_json(tmp_path / "served" / "config.json", **{REPAIR: {"sha256": "0" * 64}})
    with refused(ErrorCode.CHECKPOINT_CORRUPT, match=WEIGHTS):
        states(pool, tmp_path / "served", windows, "float32")
    beyond = {module.replace("layers.0", "layers.7"): one for module, one in factors.items()}
    attach(tiny("llama"), save_adapter(tmp_path / "beyond", beyond, scale=1.0), tmp_path / "served")
    with refused(ErrorCode.CHECKPOINT_UNSUPPORTED, match=r"layers\.7\.self_attn\.q_proj"):
        states(pool, tmp_path / "served", windows, "float32")
