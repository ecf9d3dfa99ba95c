"""What steps of recipes hold on a GPU is reckoned as a second device's tensors hold it, and asked for before."""

import gc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo, inspect
from app.recipes.base import Calibrated, Step
from app.recipes.recipe import Recipe
from app.settings import Settings
from tests.support.second_device import HELD, second_device
from tests.unit.workers.engine.test_gpu_sizes import info_of
from workers.engine import pool as module
from workers.engine.pool import EnginePool
from workers.engine.sizes import step_bytes
from workers.surgery.calibration_text import CalibrationText
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

Tiny = Callable[..., Path]
RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 2048}
# As with a large model, a wide layer's moment has more numbers than a block, and all blocks have more than it.
WIDE = HEADS | {"hidden_size": 128, "intermediate_size": 768, "num_hidden_layers": 2}
DEEP = HEADS | {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 12}
GRID = {"bits": 4, "group_size": 32}
TEXT = {"calibration_windows": 8, "calibration_window": 16}
RTN = {"type": "quantize.rtn"} | GRID
GRADIENT = {"type": "prune.gradient", "sparsity": 0.5, "passes": 1, "reconstruct_epochs": 1} | TEXT
REPAIR = {"type": "repair.lowrank", "rank": 4, "block_epochs": 1, "distill_steps": 1} | TEXT
RECIPES: dict[str, list[dict[str, Any]]] = {
    "one weight": [RTN],
    "a block": [{"type": "prune.wanda", "sparsity": 0.5} | TEXT],
    "a block and second moments": [{"type": "quantize.gptq"} | GRID | TEXT],
    "a block, folded": [{"type": "quantize.smoothquant"} | TEXT],
    "a block, folded, and a search": [{"type": "quantize.awq"} | GRID | TEXT],
    "a block and gradients": [GRADIENT],
    "the model while it recovers": [GRADIENT | {"recovery_steps": 2}],
    "the model while it is repaired": [RTN, REPAIR],
    "the reference while it writes": [RTN, REPAIR | {"own_windows": 2}],
}


def text(_: Calibrated) -> CalibrationText:
    tokens_NL = torch.randint(2, 300, (8, 16), generator=torch.Generator().manual_seed(0))
    return CalibrationText(tokens_NL, "0" * 64, documents=8, asked=8)


@pytest.mark.parametrize("what", RECIPES)
def test_a_step_holds_about_what_it_is_reckoned_to_hold(tiny: Tiny, tmp_path: Path, what: str) -> None:
    shape = DEEP if "the " in what else WIDE
    info, store = inspect(tiny("llama", **shape)), CheckpointStore(tmp_path, 10**9)
    reckoned: list[int] = []
    before: list[int] = []

    def see(source: CheckpointInfo, reference: CheckpointInfo, steps: Sequence[Step]) -> None:
        gc.collect()
        HELD.most = HELD.now
        before.append(HELD.now)
        reckoned.append(step_bytes(source, reference, steps, "cuda"))
        assert step_bytes(source, reference, steps, "cpu") == 0

    recipe = RECIPE.validate_python(RECIPES[what])
    with second_device() as device:
        apply(info, recipe, device=str(device), store=store, calibration=text, make_room=see)
    found = HELD.most - before[-1]
    assert 0.5 * found < reckoned[-1] < 1.05 * found, (reckoned[-1], found)


def test_room_is_asked_for_before_each_stage_that_is_not_stored(tiny: Tiny, tmp_path: Path) -> None:
    info, store = inspect(tiny()), CheckpointStore(tmp_path, 10**9)
    asked: list[tuple[list[Path], list[str]]] = []

    def see(source: CheckpointInfo, reference: CheckpointInfo, steps: Sequence[Step]) -> None:
        asked.append(([source.path, reference.path], [step.type for step in steps]))

    def made(*steps: dict[str, Any]) -> Path:
        recipe = RECIPE.validate_python(list(steps))
        return apply(info, recipe, device="cpu", store=store, calibration=text, make_room=see).path

    wanda = {"type": "prune.wanda", "sparsity": 0.5} | TEXT
    first = made(RTN)
    made(RTN, wanda)
    made(RTN, wanda)
    made()
    assert asked == [([info.path, info.path], ["quantize.rtn"]), ([first, info.path], ["prune.wanda"])]


def test_what_does_not_fit_beside_the_engines_is_refused_with_its_bytes(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPTQ of an 8B fits where its repair, which holds the model, does not."""
    for device in ("pick_device", "steps_device"):
        monkeypatch.setattr(module, device, lambda _: "cuda")
    monkeypatch.setattr(module, "available_bytes", lambda _: 10 * 10**9)
    monkeypatch.setattr(module, "held_bytes", lambda _: 4 * 10**9)
    pool, info = EnginePool(Settings()), info_of("Llama-3.1-8B", tiny)
    pool.make_room_for_steps(info, info, RECIPE.validate_python([RECIPES["a block and second moments"][0]]))
    with pytest.raises(
        HemostatError, match=r"repair\.lowrank needs about 2\d\.\d\d GB .* 10\.00 GB .* 4\.00 GB"
    ) as caught:
        pool.make_room_for_steps(info, info, RECIPE.validate_python([REPAIR]))
    assert caught.value.code is ErrorCode.ENGINE_OUT_OF_MEMORY
