"""The self corpus drawn by the engine that serves it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from app.contracts.text import SelfText
from app.settings import Settings
from workers.engine.pool import EnginePool
from workers.engine.sampling import Sampler
from workers.text.documents import TextDocument
from workers.text.sampler import DeferredSampler, ReferenceIdentity
from workers.text.self_corpus import load_self, prompts
from workers.text.tokenization import load_tokenizer
from workers.text.windows import Corpus, make_windows


@pytest.fixture(scope="module")
def checkpoint(tiny: Callable[..., Path]) -> Path:
    # the prompts of a byte-level tokenizer are long
    return tiny("llama", max_position_embeddings=1024)


def test_the_engine_s_words_come_back_exactly_and_are_what_is_scored(
    checkpoint: Path, pool: EnginePool, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(checkpoint)
    starts = 0

    def start() -> Sampler:
        nonlocal starts
        starts += 1
        return Sampler(checkpoint, pool=pool)

    def load(home: Path) -> list[TextDocument]:
        with DeferredSampler(start) as sampler:
            return load_self(
                SelfText(source="self", tokens=1_500),
                settings=Settings(home=home),
                tokenizer=tokenizer,
                sampler=sampler,
                identity=ReferenceIdentity("weights", "tokenizer", "vllm"),
                seed=3,
                context=1024,
            )

    def corpus(home: Path) -> Corpus:
        return make_windows(load(home), tokenizer, 512)

    first = corpus(tmp_path / "one")
    assert starts == 1
    assert {info.domain for info in first.documents} == set(prompts())
    assert first.scored >= 1_500
    assert all(window.scored.any() and not window.scored[0] for window in first.windows)
    # kept: no engine is started; drawn anew elsewhere: the same tokens
    assert corpus(tmp_path / "one").fingerprint == first.fingerprint
    assert starts == 1
    assert corpus(tmp_path / "two").fingerprint == first.fingerprint
    assert starts == 2
