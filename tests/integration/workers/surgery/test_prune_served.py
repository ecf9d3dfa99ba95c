"""Checkpoints that lost parts, in vLLM's pooling engine: hidden states are those of transformers on the same files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from app.models.checkpoint import inspect
from tests.support.pruning import load, operate
from workers.engine.pool import EnginePool
from workers.engine.scoring import ScoringEngine
from workers.surgery.store import CheckpointStore

Tiny = Callable[..., Path]
# Six query heads of 32 in three groups: of 96 hidden channels both six and two heads are divisors.
WIDE: dict[str, Any] = {"hidden_size": 96, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 32}
WINDOWS = [list(range(3, 60)), list(range(40, 160)), [7]]
HEADS: dict[str, Any] = {"type": "prune.heads", "count": 4}
CHANNELS: dict[str, Any] = {"type": "prune.channels", "count": 27}
LAYERS: dict[str, Any] = {"type": "prune.layers", "layers": [0]}


@pytest.mark.parametrize(
    ("kind", "options", "steps"),
    [
        ("llama", {}, [HEADS]),
        ("llama", {}, [CHANNELS, HEADS, LAYERS]),
        ("qwen2", {"num_attention_heads": 4, "num_key_value_heads": 2, "hidden_size": 128}, [HEADS | {"count": 2}]),
        ("gemma2", {}, [LAYERS, CHANNELS, HEADS]),
    ],
)
def test_the_smaller_checkpoint_is_served(
    tiny: Tiny, tmp_path: Path, pool: EnginePool, kind: str, options: dict[str, Any], steps: list[dict[str, Any]]
) -> None:
    folder = tiny(kind, **(WIDE | options))
    with operate(folder, CheckpointStore(tmp_path, 10**9), *steps) as modified:
        assert inspect(modified.path).bytes < inspect(folder).bytes
        engine = ScoringEngine(modified.path, settings=pool.settings, max_model_len=128, dtype="float32", pool=pool)
        found = [hidden_TD for _, hidden_TD in engine.score(WINDOWS)]
        model = load(modified.path, torch.float32, attention="eager")  # the other one ignores soft caps
    for hidden_TD, window in zip(found, WINDOWS, strict=True):
        with torch.no_grad():
            expected_TD = model.model(torch.tensor([window])).last_hidden_state[0]
        torch.testing.assert_close(hidden_TD, expected_TD, rtol=1e-3, atol=2e-4)
