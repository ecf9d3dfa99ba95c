"""vLLM's engine on the device: memory that comes back, weights that are swapped, and states like transformers'."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from app.models.checkpoint import inspect
from app.settings import Settings
from tests.integration.workers.engine.conftest import same
from tests.support.engines import residents
from workers.engine.pool import EnginePool
from workers.engine.resident import ResidentEngine
from workers.engine.swap import Trust

Tiny = Callable[..., Path]
MIB = 2**20


@pytest.fixture
def start(device: str, tmp_path: Path) -> Iterator[Callable[[Path], ResidentEngine]]:
    """`start(checkpoint)`: an engine of its own on the device, closed after the test."""
    pool = EnginePool(Settings(home=tmp_path, engine_device=device, engine_kv_cache_bytes=16 * MIB))
    with residents(pool) as start:
        yield lambda checkpoint: start(checkpoint, Trust(device))
    pool.close()


def test_an_engine_that_ends_gives_its_memory_back(
    tiny: Tiny, start: Callable[[Path], ResidentEngine], released: Callable[[], int], windows: list[list[int]]
) -> None:
    """The first engine is left out: it loads libraries, which stay."""
    after = []
    for seed in range(4):
        engine = start(tiny("llama", seed=seed))
        engine.hidden_states(windows)
        engine.close()
        after.append(released())
    assert after[-1] - after[0] < 64 * MIB


def test_swapped_weights_score_as_a_fresh_engine_does(
    tiny: Tiny, start: Callable[[Path], ResidentEngine], windows: list[list[int]]
) -> None:
    first, second = tiny("llama"), tiny("llama", seed=1)
    engine = start(first)
    one = engine.hidden_states(windows)
    engine.load(inspect(second))
    other = engine.hidden_states(windows)
    engine.load(inspect(first))
    assert same(engine.hidden_states(windows), one)
    engine.close()
    assert same(start(second).hidden_states(windows), other)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mixtral"])
def test_hidden_states_are_near_those_of_transformers(
    tiny: Tiny, start: Callable[[Path], ResidentEngine], windows: list[list[int]], kind: str
) -> None:
    """The engine computes in bf16, transformers in float32. The median leaves out positions that a rounded router sends
    to another expert."""
    model = AutoModelForCausalLM.from_pretrained(tiny(kind), dtype=torch.float32, attn_implementation="eager").eval()
    for hidden_TD, window in zip(start(tiny(kind)).hidden_states(windows), windows, strict=True):
        with torch.no_grad():
            expected_TD = model.model(torch.tensor([window])).last_hidden_state[0]
        off_T = (hidden_TD.cpu().float() - expected_TD).norm(dim=1) / expected_TD.norm(dim=1)
        assert off_T.median() < 0.02
