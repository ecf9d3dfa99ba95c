"""vLLM's engine on the device: memory that comes back, weights that are swapped, and states like transformers'."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode
from app.models.checkpoint import inspect
from app.settings import Settings
from tests.integration.workers.engine.conftest import same
from tests.support.engines import residents
from tests.support.refusals import refused
from workers.engine.pool import EnginePool
from workers.engine.resident import ResidentEngine
from workers.engine.swap import Trust

Tiny = Callable[..., Path]
MIB = 2**20


@pytest.fixture
def start_with(device: str, tmp_path: Path) -> Iterator[Callable[..., ResidentEngine]]:
    """`start_with(checkpoint, **settings)`: an engine of its own on the device, closed after the test."""
    with ExitStack() as stack:

        def start(checkpoint: Path, **settings: Any) -> ResidentEngine:
            given = {"home": tmp_path, "engine_device": device, "engine_kv_cache_bytes": 16 * MIB} | settings
            pool = EnginePool(Settings(**given))
            stack.callback(pool.close)
            return stack.enter_context(residents(pool))(checkpoint, Trust(device))

        yield start


@pytest.fixture
def start(start_with: Callable[..., ResidentEngine]) -> Callable[[Path], ResidentEngine]:
    """`start(checkpoint)`: as `start_with`, with few bytes for keys and values."""
    return start_with


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


def test_a_mixture_scores_as_before_after_another_engine_ended(
    tiny: Tiny, start: Callable[[Path], ResidentEngine], windows: list[list[int]]
) -> None:
    """vLLM keeps one workspace per process, which experts need and an engine's end drops."""
    mixture = start(tiny("mixtral"))
    before = mixture.hidden_states(windows)
    other = start(tiny("llama"))
    other.hidden_states(windows)
    assert same(mixture.hidden_states(windows), before)
    other.close()
    assert same(mixture.hidden_states(windows), before)


def test_after_memory_ran_out_an_engine_starts_and_scores_as_before(
    tiny: Tiny,
    start: Callable[[Path], ResidentEngine],
    start_with: Callable[..., ResidentEngine],
    released: Callable[[], int],
    windows: list[list[int]],
) -> None:
    """No machine has a PiB for keys and values."""
    engine = start(tiny("llama"))
    before = engine.hidden_states(windows)
    engine.close()
    taken = released()
    with refused(ErrorCode.ENGINE_OUT_OF_MEMORY, match="memory ran out while starting"):
        start_with(tiny("llama"), engine_kv_cache_bytes=2**50)
    assert released() - taken < 64 * MIB
    assert same(start(tiny("llama")).hidden_states(windows), before)


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
