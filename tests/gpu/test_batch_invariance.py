"""vLLM's mode in which a text scores the same in every batch: for a process of its own, which imports vLLM in it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from app.settings import Settings
from tests.integration.workers.engine.conftest import same
from workers.distributions.divergence import Divergence
from workers.distributions.head import Head
from workers.engine.pool import EnginePool
from workers.engine.scoring import ScoringEngine
from workers.measuring.floor import is_zero


@pytest.fixture(autouse=True)
def able(device: str) -> None:
    """Skips on a device that has no such mode (`workers.engine.device.check_batch_invariance`)."""
    if device == "cpu":
        pytest.skip("a processor has no batch-invariant mode")
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this GPU has no batch-invariant mode")


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_windows_score_the_same_alone_and_in_a_batch_and_the_noise_floor_is_zero(
    tiny: Callable[..., Path], tmp_path: Path, device: str, windows: list[list[int]], kind: str
) -> None:
    settings = Settings(home=tmp_path, engine_device=device, engine_kv_cache_bytes=2**24, batch_invariant=True)
    pool, head = EnginePool(settings), Head.load(tiny(kind))
    engine = ScoringEngine(tiny(kind), settings=settings, max_model_len=128, pool=pool)
    together, alone = ([hidden_TD for _, hidden_TD in engine.score(windows, batch=batch)] for batch in (None, 1))
    pool.close()
    assert same(together, alone)
    divergence = Divergence(head, head, device=device)
    for one_TD, other_TD, window in zip(together, alone, windows, strict=True):
        next_T = torch.tensor(window[1:])
        assert is_zero(divergence(one_TD[:-1].to(device), other_TD[:-1].to(device), next_T).kl.astype(np.float64))
