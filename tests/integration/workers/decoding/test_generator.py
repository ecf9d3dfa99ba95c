"""One checkpoint under any decoder: vLLM and transformers take the same tokens, for they are given the same numbers."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.contracts.decoding import DECODER, Decoder, defaults, rows_of, runs_in_vllm
from app.contracts.errors import ErrorCode
from app.settings import Settings
from tests.support.refusals import refused
from workers.decoding.generator import Generator
from workers.decoding.loop import decode
from workers.decoding.transformers_model import TransformersModel
from workers.engine.pool import EnginePool

Tiny = Callable[..., Path]
PROMPTS = [[5, 6, 7, 8, 9], [10, 11, 12], [20, 21, 22, 23, 24, 25, 26], [3, 4], [5, 6, 7, 8, 9]]
STEPS = 24
LENGTH = 64


@pytest.fixture(scope="module")
def generator(tiny: Tiny, pool: EnginePool) -> Iterator[Generator]:
    with Generator(tiny("llama"), pool=pool, length=LENGTH, dtype="float32") as made:
        yield made


@pytest.fixture(scope="module")
def model(tiny: Tiny) -> TransformersModel:
    return TransformersModel(tiny("llama"), device="cpu", dtype=torch.float32)


IN_VLLM = [decoder for decoder in defaults() if runs_in_vllm(decoder)]


def test_vllm_runs_what_it_has() -> None:
    assert [decoder.name for decoder in IN_VLLM] == ["greedy", "temperature", "top_p", "top_k", "min_p"]


@pytest.mark.parametrize("decoder", IN_VLLM, ids=lambda decoder: decoder.name)
def test_vllm_and_transformers_take_the_same_tokens(
    generator: Generator, model: TransformersModel, decoder: Decoder
) -> None:
    keys = [4, 9, 1, 0, 7]

    ours = generator.run(decoder, PROMPTS, max_tokens=STEPS, seed=3, keys=keys)

    assert ours == decode(model, PROMPTS, decoder, max_tokens=STEPS, seed=3, keys=keys, ends=generator.ends)
    if decoder.name != "greedy":
        assert ours[0] != ours[4]  # one prompt, two keys
        assert ours != generator.run(decoder, PROMPTS, max_tokens=STEPS, seed=4, keys=keys)


def test_parts_that_run_one_after_the_other_change_nothing(tiny: Tiny, pool: EnginePool, generator: Generator) -> None:
    decoder = DECODER.validate_python({"name": "top_p", "p": 0.9})
    told: list[tuple[int, int]] = []

    with Generator(tiny("llama"), pool=pool, length=LENGTH, streams=2, dtype="float32") as narrow:
        made = narrow.run(decoder, PROMPTS, max_tokens=STEPS, progress=lambda done, total: told.append((done, total)))

    assert made == generator.run(decoder, PROMPTS, max_tokens=STEPS)
    assert told == [(0, 5), (2, 5), (4, 5), (5, 5)]


def test_a_text_ends_where_the_checkpoint_says(tiny: Tiny, pool: EnginePool, tmp_path: Path) -> None:
    """Two tokens in three end a text: of many texts, each stops at the first one."""
    checkpoint = Path(shutil.copytree(tiny("llama"), tmp_path / "model"))
    (checkpoint / "generation_config.json").write_text(json.dumps({"eos_token_id": [t for t in range(320) if t % 3]}))

    with Generator(checkpoint, pool=pool, length=LENGTH, dtype="float32") as made:
        texts = made.run(DECODER.validate_python({"name": "temperature"}), PROMPTS * 4, max_tokens=STEPS)

    assert any(len(text.tokens) > 1 for text in texts)
    for text in texts:
        assert text.ended == (text.tokens[-1] in made.ends)
        assert not made.ends & set(text.tokens[:-1])
        assert text.ended or len(text.tokens) == STEPS


def test_every_decoder_runs_in_one_generator_and_takes_what_the_loop_takes(
    generator: Generator, model: TransformersModel
) -> None:
    for decoder in sorted(defaults(), key=runs_in_vllm):
        made = generator.run(decoder, PROMPTS, max_tokens=12, seed=5)

        assert [len(one.tokens) <= 12 for one in made] == [True] * 5
        size = 32 // rows_of(decoder)
        assert size >= 4
        expected = decode(model, PROMPTS[:size], decoder, max_tokens=12, seed=5, ends=generator.ends)
        assert made[:size] == expected, decoder.name


def test_a_length_beyond_the_context_is_refused(tiny: Tiny, pool: EnginePool) -> None:
    with refused(ErrorCode.WINDOW_TOO_LARGE):
        Generator(tiny("llama"), pool=pool, length=257)


@pytest.mark.parametrize("name", ["greedy", "beam"])
def test_a_caller_may_stop_it(tiny: Tiny, pool: EnginePool, name: str) -> None:
    asked: list[int] = []

    def stop() -> None:
        asked.append(1)
        if len(asked) > 30:
            raise InterruptedError

    with (
        Generator(tiny("llama"), pool=pool, length=256, check_cancelled=stop) as made,
        pytest.raises(InterruptedError),
    ):
        made.run(DECODER.validate_python({"name": name}), PROMPTS, max_tokens=200)


@pytest.mark.parametrize("name", ["greedy", "top_p", "beam"])
def test_logits_that_are_not_finite_are_refused(tiny: Tiny, pool: EnginePool, tmp_path: Path, name: str) -> None:
    """A final norm of weights that are finite, and of which no product is."""
    checkpoint = Path(shutil.copytree(tiny("llama"), tmp_path / "model"))
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["model.norm.weight"] = torch.full_like(tensors["model.norm.weight"], 3e38)
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})

    with (
        Generator(checkpoint, pool=pool, length=LENGTH) as made,
        refused(ErrorCode.NONFINITE_LOGITS),
    ):
        made.run(DECODER.validate_python({"name": name}), PROMPTS, max_tokens=3)


def test_there_is_room_for_as_many_rows_as_a_decoder_runs_at_once(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contrastive search may run more rows for one prompt than run at once otherwise."""
    asked: list[int] = []
    loaded: list[object] = []
    monkeypatch.setattr("workers.decoding.transformers_model.TransformersModel", lambda *_, **__: loaded.append(1) or 1)
    room = SimpleNamespace(make_room=asked.append, settings=Settings(engine_batch_tokens=512), device="cpu")
    with Generator(tiny("llama"), pool=cast(EnginePool, room), length=LENGTH, streams=4, dtype="float32") as made:
        row = made._row_bytes()
        for rows in (1, 4, 6, 6, 8):
            made._loaded(rows)
        weights = 4 * made.info.parameters
    assert row > 0
    assert asked == [weights + 4 * row, 2 * row, 2 * row]
    assert len(loaded) == 1
