import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from app.contracts.errors import ErrorCode, HemostatError
from app.settings import Settings
from tests.integration.workers.engine.conftest import same
from tests.support.refusals import refused
from tests.support.tiny import make_checkpoint
from workers.engine.room import EngineRoom
from workers.engine.scoring import ScoringEngine

Tiny = Callable[..., Path]
Packed = Callable[..., Path]


@pytest.fixture
def room(engine_settings: Settings) -> Iterator[EngineRoom]:
    opened = EngineRoom(engine_settings)
    yield opened
    opened.close()


def states(engine: ScoringEngine, windows: list[list[int]]) -> list[torch.Tensor]:
    return [hidden_TD for _, hidden_TD in engine.score(windows)]


def test_starts_and_swaps_are_counted(tiny: Tiny, room: EngineRoom, windows: list[list[int]]) -> None:
    assert (room.starts, room.swaps) == (0, 0)
    room.engine(tiny("llama"), 128)
    room.engine(tiny("llama", seed=1), 100)
    room.engine(tiny("llama", seed=1), 128)
    assert (room.starts, room.swaps) == (1, 1)
    room.engine(tiny("llama"), 200)  # another context, another engine
    assert (room.starts, room.swaps) == (2, 1)


def test_two_kinds_of_engine_live_side_by_side_and_the_third_takes_the_place_of_the_oldest(
    tiny: Tiny, packed: Packed, room: EngineRoom, windows: list[list[int]]
) -> None:
    """Ending one must not end what the other needs; a mixture of experts needs a process group that others do not."""
    dense, mixture = room.engine(tiny("llama"), 128), room.engine(tiny("mixtral"), 128)
    dense_states, mixture_states = states(dense, windows), states(mixture, windows)
    assert room.starts == 2
    assert same(states(dense, windows), dense_states)
    int8 = room.engine(packed("llama", "W8A8"), 128)  # the mixture was used longest ago
    int8_states = states(int8, windows)
    assert room.starts == 3
    assert same(states(dense, windows), dense_states)
    assert room.starts == 3
    assert same(states(mixture, windows), mixture_states)
    assert same(states(int8, windows), int8_states)
    assert room.starts == 5


def test_an_engine_that_needs_too_much_memory_is_refused_and_the_room_goes_on(
    tiny: Tiny, engine_settings: Settings, windows: list[list[int]]
) -> None:
    huge = EngineRoom(engine_settings.model_copy(update={"engine_kv_cache_bytes": 1 << 50}))
    with refused(ErrorCode.ENGINE_OUT_OF_MEMORY, match=r"GB are free; this process holds \d+\.\d\d GB") as caught:
        huge.engine(tiny("llama"), 128)
    assert "HEMOSTAT_ENGINE_KV_CACHE_BYTES" in caught.value.hint
    huge.close()
    room = EngineRoom(engine_settings)
    assert len(states(room.engine(tiny("llama"), 128), windows)) == len(windows)
    room.close()


def test_memory_that_runs_out_while_scoring_ends_the_job_not_the_room(
    tiny: Tiny, room: EngineRoom, windows: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's own allocator fails, inside the model."""
    engine = room.engine(tiny("llama"), 128)
    before = states(engine, windows)
    from vllm.model_executor.models.llama import LlamaModel

    def exhausted(*_: object, **__: object) -> torch.Tensor:
        return torch.empty(1 << 60, dtype=torch.uint8)

    with monkeypatch.context() as patch:
        patch.setattr(LlamaModel, "forward", exhausted)
        patch.setattr(LlamaModel, "__call__", exhausted)
        with pytest.raises(HemostatError) as caught:
            states(engine, windows)
    assert caught.value.code is ErrorCode.ENGINE_OUT_OF_MEMORY
    assert same(states(engine, windows), before)
    assert room.starts == 2


def test_ending_an_engine_gives_its_memory_back(tmp_path: Path, engine_settings: Settings) -> None:
    """160 MB of weights come and go three times."""
    folder = make_checkpoint(tmp_path, hidden_size=1024, intermediate_size=4096, num_hidden_layers=5)
    process = psutil.Process()
    sizes = []
    for _ in range(4):
        room = EngineRoom(engine_settings)
        states(room.engine(folder, 128), [[1, 2, 3]])
        running = process.memory_info().rss
        room.close()
        sizes.append(process.memory_info().rss)
    assert max(sizes[1:]) - sizes[0] < 60e6
    assert running - sizes[-1] > 100e6


def test_the_process_is_left_as_it_was(tiny: Tiny, room: EngineRoom) -> None:
    models = tiny("llama"), tiny("llama", seed=1)
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    setter = torch.set_num_threads
    room.engine(models[0], 128)
    with pytest.raises(HemostatError):
        room.engine(models[0], 1000)
    room.engine(models[1], 128)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    assert torch.get_default_dtype() == torch.float32
    assert torch.set_num_threads is setter


def test_an_identity_needs_no_engine(tiny: Tiny, room: EngineRoom) -> None:
    engine = room.engine(tiny("llama"), 128, load=False)
    assert "vllm" in str(engine.identity)
    assert room.starts == 0
    assert len(states(engine, [[1, 2]])) == 1
    assert room.starts == 1


def test_an_engine_of_its_own_can_be_had_without_a_room(
    tiny: Tiny, engine_settings: Settings, windows: list[list[int]]
) -> None:
    engine = ScoringEngine(tiny("llama"), settings=engine_settings, max_model_len=128)
    before = states(engine, windows)
    engine.load(tiny("llama", seed=1))
    assert not same(states(engine, windows), before)
    engine.load(tiny("llama"))
    assert same(states(engine, windows), before)
    engine.close()
    assert same(states(engine, windows), before)  # it starts again when it is needed
    engine.close()
