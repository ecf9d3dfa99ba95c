"""Models of another depth, width, routing or context: vLLM computes what transformers does, in float32."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from transformers import AutoModelForCausalLM

from app.models.checkpoint import inspect
from app.recipes.recipe import Recipe
from workers.engine.pool import EnginePool
from workers.engine.scoring import ScoringEngine
from workers.surgery.modified import Modified
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

Tiny = Callable[..., Path]
RECIPE: TypeAdapter[Recipe] = TypeAdapter(Recipe)
OTHERS = ("qwen2", "gemma2")
WINDOWS = [np.random.default_rng(4).integers(2, 300, length).tolist() for length in (120, 33)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> CheckpointStore:
    return CheckpointStore(tmp_path_factory.mktemp("store"), 10**9)


def operate(folder: Path, store: CheckpointStore, step: dict[str, Any]) -> Modified:
    return apply(inspect(folder), RECIPE.validate_python([step]), device="cpu", store=store)


def served(pool: EnginePool, folder: Path) -> list[torch.Tensor]:
    engine = ScoringEngine(folder, settings=pool.settings, max_model_len=128, dtype="float32", pool=pool)
    return [hidden_TD for _, hidden_TD in engine.score(WINDOWS)]


@torch.no_grad()
def computed(folder: Path) -> list[torch.Tensor]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    return [model.model(torch.tensor([window])).last_hidden_state[0] for window in WINDOWS]


def agree(tiny: Tiny, pool: EnginePool, store: CheckpointStore, kind: str, step: dict[str, Any]) -> None:
    with operate(tiny(kind), store, step) as modified:
        for found_TD, expected_TD in zip(served(pool, modified.path), computed(modified.path), strict=True):
            torch.testing.assert_close(found_TD, expected_TD, rtol=1e-3, atol=5e-4)


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        ("llama", {"type": "extend.duplicate", "layers": [0, 1]}),
        ("gemma2", {"type": "extend.interpolate", "layers": [1]}),
        ("qwen2", {"type": "extend.width", "channels": 2}),
        ("granite", {"type": "extend.width", "heads": 2, "channels": 2}),
        ("llama", {"type": "context.linear", "factor": 2}),
        ("llama", {"type": "context.ntk", "factor": 2}),
        ("llama", {"type": "context.yarn", "factor": 2}),
        ("gemma2", {"type": "norm.scale", "factor": 1.1}),
        ("gemma2", {"type": "norm.epsilon", "epsilon": 0.05}),
        ("mixtral", {"type": "moe.topk", "experts": 1}),
    ],
)
def test_the_engine_and_transformers_agree(
    tiny: Tiny, pool: EnginePool, store: CheckpointStore, kind: str, step: dict[str, Any]
) -> None:
    agree(tiny, pool, store, kind, step)


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        *((kind, {"type": f"context.{way}", "factor": 2}) for kind in OTHERS for way in ("linear", "ntk", "yarn")),
        *((kind, {"type": "extend.duplicate", "layers": [0, 1]}) for kind in OTHERS),
        ("qwen2", {"type": "norm.scale", "factor": 1.1}),
        ("qwen2", {"type": "norm.epsilon", "epsilon": 0.05}),
    ],
)
def test_they_agree_on_other_architectures_too(
    tiny: Tiny, pool: EnginePool, store: CheckpointStore, kind: str, step: dict[str, Any]
) -> None:
    agree(tiny, pool, store, kind, step)


def test_an_inserted_identity_is_served_to_the_last_bit(tiny: Tiny, pool: EnginePool, store: CheckpointStore) -> None:
    with operate(tiny(), store, {"type": "extend.identity", "layers": [0, 2]}) as modified:
        assert inspect(modified.path).layers == 5
        found = served(pool, modified.path)
    assert all(map(torch.equal, found, served(pool, tiny())))
