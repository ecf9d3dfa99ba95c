import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from app.contracts.errors import ErrorCode
from app.settings import Settings
from tests.integration.workers.engine.conftest import same
from tests.support.copies import copier
from tests.support.refusals import refused
from workers.engine.pool import EnginePool
from workers.engine.scoring import ScoringEngine

Tiny = Callable[..., Path]


def engine_of(pool: EnginePool, checkpoint: Path, length: int = 128, dtype: str = "bfloat16") -> ScoringEngine:
    return ScoringEngine(checkpoint, settings=pool.settings, max_model_len=length, dtype=dtype, pool=pool)


def states(engine: ScoringEngine, windows: list[list[int]], batch: int | None = None) -> list[torch.Tensor]:
    return [hidden_TD for _, hidden_TD in engine.score(windows, batch=batch)]


@pytest.mark.parametrize("kind", ["llama", "llama-padded", "qwen2", "gemma2", "granite", "mixtral"])
def test_hidden_states_are_those_of_transformers(
    tiny: Tiny, pool: EnginePool, windows: list[list[int]], kind: str
) -> None:
    """In float32, where the two implementations differ by rounding alone."""
    checkpoint = tiny(kind)
    ours = states(engine_of(pool, checkpoint, dtype="float32"), windows)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
    for hidden_TD, window in zip(ours, windows, strict=True):
        with torch.no_grad():
            expected_TD = model.model(torch.tensor([window])).last_hidden_state[0]
        assert hidden_TD.dtype == torch.float32
        torch.testing.assert_close(hidden_TD, expected_TD, rtol=1e-3, atol=2e-4)


def test_the_configuration_is_config_json_also_where_mistral_s_own_lies_beside_it(
    tiny: Tiny, tmp_path: Path, pool: EnginePool, windows: list[list[int]], engine_settings: Settings
) -> None:
    folder = copier(tiny, tmp_path)()
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    save_file(weights, folder / "model-00001-of-00001.safetensors")
    weight_map = dict.fromkeys(weights, "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    save_file({"norm.weight": torch.zeros(64)}, folder / "consolidated.safetensors")
    (folder / "params.json").write_text(json.dumps({"dim": 32, "n_layers": 1, "n_heads": 1, "vocab_size": 320}))
    expected = states(engine_of(pool, tiny("llama")), windows)
    engine = ScoringEngine(folder, settings=engine_settings, max_model_len=128)  # started for it, not swapped
    found = states(engine, windows)
    engine.close()
    assert same(found, expected)


def test_windows_come_in_order_and_own_their_memory(tiny: Tiny, pool: EnginePool, windows: list[list[int]]) -> None:
    scored = list(engine_of(pool, tiny("llama")).score(windows))
    assert [index for index, _ in scored] == list(range(len(windows)))
    for (_, hidden_TD), window in zip(scored, windows, strict=True):
        assert hidden_TD.shape == (len(window), 64)
        assert hidden_TD.dtype == torch.bfloat16
        assert hidden_TD.untyped_storage().nbytes() == hidden_TD.nbytes


@pytest.mark.parametrize("batch", [1, 3, 8, 12])
def test_the_batch_does_not_change_a_bit(tiny: Tiny, pool: EnginePool, windows: list[list[int]], batch: int) -> None:
    engine = engine_of(pool, tiny("llama"))
    whole = states(engine, windows)
    assert same(states(engine, windows), whole)
    assert same(states(engine, windows, batch), whole)


def test_a_window_longer_than_a_step_is_split_without_a_trace(tiny: Tiny, engine_settings: Settings) -> None:
    window = np.random.default_rng(1).integers(0, 320, 250)
    checkpoint = tiny("llama")
    found = []
    for step in (512, 100):
        engine = ScoringEngine(
            checkpoint, settings=engine_settings.model_copy(update={"engine_batch_tokens": step}), max_model_len=250
        )
        found.append([hidden_TD for _, hidden_TD in engine.score([window])])
        engine.close()
    assert same(*found)


def test_arrays_are_taken_as_lists_are(tiny: Tiny, pool: EnginePool, windows: list[list[int]]) -> None:
    engine = engine_of(pool, tiny("llama"))
    arrays = [np.asarray(window, dtype=np.int32) for window in windows]
    assert same([hidden_TD for _, hidden_TD in engine.score(arrays)], states(engine, windows))


def test_two_checkpoints_in_one_engine_are_never_confused(
    tiny: Tiny, pool: EnginePool, windows: list[list[int]]
) -> None:
    """The second one's weights replace the first one's; the first must still score its own, even in mid-iteration."""
    reference = engine_of(pool, tiny("llama"))
    alone = states(reference, windows, 4)
    candidate = engine_of(pool, tiny("llama", seed=1))
    other = states(candidate, windows, 4)
    assert not same(alone, other)
    both = list(zip(reference.score(windows, batch=4), candidate.score(windows, batch=4), strict=True))
    assert same([one for (_, one), _ in both], alone)
    assert same([one for _, (_, one) in both], other)


class StopError(Exception):
    pass


def test_it_stops_between_steps_and_is_good_for_more(tiny: Tiny, pool: EnginePool, windows: list[list[int]]) -> None:
    engine = engine_of(pool, tiny("llama"))
    whole = states(engine, windows)
    for after in range(4):
        calls = iter([False] * after + [True] * 100)

        def check(calls: Iterator[bool] = calls) -> None:
            if next(calls):
                raise StopError

        with pytest.raises(StopError):
            list(engine.score(windows, batch=2, check_cancelled=check))
        assert same(states(engine, windows), whole)


def test_a_caller_that_loses_interest_leaves_nothing_behind(
    tiny: Tiny, pool: EnginePool, windows: list[list[int]]
) -> None:
    engine = engine_of(pool, tiny("llama"))
    whole = states(engine, windows)
    iterator = engine.score(windows, batch=2)
    next(iterator)
    iterator.close()
    assert same(states(engine, windows), whole)


def test_a_window_longer_than_asked_for_is_refused(tiny: Tiny, pool: EnginePool) -> None:
    engine = engine_of(pool, tiny("llama"), 100)
    with refused(ErrorCode.WINDOW_TOO_LARGE, match="101 tokens"):
        list(engine.score([[1] * 101]))


@pytest.mark.parametrize("token", [-1, 320, 10**6])
def test_a_token_that_the_model_has_not_is_refused(tiny: Tiny, pool: EnginePool, token: int) -> None:
    with refused(ErrorCode.VOCABULARY_MISMATCH, match=str(token)):
        list(engine_of(pool, tiny("llama")).score([[1, 2], [3, token]]))


def test_an_empty_window_is_a_mistake_of_the_caller(tiny: Tiny, pool: EnginePool) -> None:
    with pytest.raises(ValueError, match="window 1"):
        list(engine_of(pool, tiny("llama")).score([[1, 2], []]))


def test_a_window_beyond_the_models_context_is_refused(tiny: Tiny, pool: EnginePool) -> None:
    with refused(ErrorCode.WINDOW_TOO_LARGE, match="256"):
        engine_of(pool, tiny("llama"), 257)


def test_an_identity_says_what_the_numbers_depend_on(tiny: Tiny, pool: EnginePool) -> None:
    told = str(engine_of(pool, tiny("llama"), dtype="auto").identity)
    assert "0.32.0" in told
    assert "bfloat16" in told
    assert "eager" in told
