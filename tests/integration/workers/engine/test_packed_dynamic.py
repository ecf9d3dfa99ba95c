"""vLLM's own kernels on what dynamic quantization scaling packs, mixed widths included."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from app.models.checkpoint import inspect
from tests.support.processor import needs_avx512
from tests.support.quantizing import operate
from workers.engine.pool import EnginePool
from workers.engine.scoring import ScoringEngine
from workers.surgery.dequantize import dequantize
from workers.surgery.store import CheckpointStore

Tiny = Callable[..., Path]
KINDS = ["llama", "qwen2", "gemma2"]
DYNAMIC = {"type": "quantize.dynamic", "bits": 4, "group_size": 32, "form": "packed"}
MIXED = DYNAMIC | {"bits": 5.5, "mixed": True, "activation_bits": 8, "symmetric": True, "group_size": None}


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "store", 10**9)


def states(pool: EnginePool, folder: Path, windows: list[list[int]]) -> torch.Tensor:
    engine = ScoringEngine(folder, settings=pool.settings, max_model_len=128, pool=pool)
    return torch.cat([hidden_TD.float() for _, hidden_TD in engine.score(windows)])


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


@needs_avx512
@pytest.mark.parametrize("kind", KINDS)
def test_four_bits_are_served_as_the_weights_that_they_mean(
    tiny: Tiny, pool: EnginePool, store: CheckpointStore, windows: list[list[int]], kind: str
) -> None:
    with operate(tiny(kind), store, DYNAMIC) as made, dequantize(inspect(made.path), device="cpu", store=store) as twin:
        packed, same = states(pool, made.path, windows), states(pool, twin.path, windows)
    assert apart(packed, same) < 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_four_and_eight_bits_are_served_together_with_rounded_activations(
    tiny: Tiny, pool: EnginePool, store: CheckpointStore, windows: list[list[int]], kind: str
) -> None:
    with operate(tiny(kind), store, MIXED) as made, dequantize(inspect(made.path), device="cpu", store=store) as twin:
        widths = Counter(round(change.bits_per_weight) for change in made.manifest.tensors if "_proj" in change.name)
        packed, same = states(pool, made.path, windows), states(pool, twin.path, windows)
    assert set(widths) == {4, 8}
    assert apart(packed, same) < 0.3
