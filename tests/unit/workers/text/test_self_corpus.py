from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from app.contracts.errors import ErrorCode
from app.contracts.text import SelfText
from app.settings import Settings
from tests.support.refusals import refused
from tests.support.tiny import make_tokenizer
from tests.unit.workers.text.transformers_sampler import TransformersSampler
from workers.text.documents import TextDocument
from workers.text.sampler import ReferenceIdentity
from workers.text.self_corpus import load_self, prompts
from workers.text.windows import make_windows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IDENTITY = ReferenceIdentity(weights="w", tokenizer="t", engine="transformers 5")
Load = Callable[..., list[TextDocument]]


@pytest.fixture(scope="session")
def checkpoint(tiny: Callable[..., Path]) -> Path:
    # the prompts of a byte-level tokenizer are long
    return tiny("llama", max_position_embeddings=1024)


class Drawing:
    """Draws tokens evenly, as a model would that knows nothing: most of these tests ask nothing of a model."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[list[int]], int, int, float]] = []

    def sample(self, prompts: list[list[int]], max_tokens: int, seed: int, temperature: float) -> list[list[int]]:
        self.calls.append((prompts, max_tokens, seed, temperature))
        draw = Random(f"{seed}/{temperature}")
        return [[draw.randrange(2, 320) for _ in range(draw.randint(0, max_tokens))] for _ in prompts]


@pytest.fixture
def sampler() -> Drawing:
    return Drawing()


@pytest.fixture
def load(settings: Callable[..., Settings], sampler: Drawing) -> Load:
    home = settings()

    def call(tokens: int = 300, temperature: float = 1.0, **options: object) -> list[TextDocument]:
        source = SelfText(source="self", tokens=tokens, temperature=temperature)
        arguments = {"settings": home, "tokenizer": make_tokenizer(), "sampler": sampler, "identity": IDENTITY}
        return load_self(source, **(arguments | options))  # type: ignore[arg-type]

    return call


def ids(documents: list[TextDocument]) -> list[tuple[str, list[int], int]]:
    return [
        (document.id, [] if document.tokens is None else document.tokens.tolist(), document.scored_from)
        for document in documents
    ]


def test_prompts_cover_eight_domains_none_twice() -> None:
    assert {"prose", "dialogue", "code", "mathematics", "json-tools", "french", "german"} < set(prompts())
    for wording in ("ask", "begin"):
        told = [getattr(prompt, wording) for many in prompts().values() for prompt in many]
        assert len(told) == len(set(told)) == 96


def test_it_has_the_tokens_asked_for_over_all_domains(load: Load, sampler: Drawing) -> None:
    documents = load(300)
    assert {document.domain for document in documents} == set(prompts())
    assert len({document.id for document in documents}) == len(documents)
    sampled = [len(document.tokens) - document.scored_from for document in documents if document.tokens is not None]
    assert sum(sampled) >= 300
    assert max(sampled) <= 32
    assert all(call[1] == 32 for call in sampler.calls)


def test_the_prompt_is_context_and_what_was_drawn_is_scored_exactly(
    load: Load, sampler: Drawing, plain_tokenizer: "PreTrainedTokenizerBase"
) -> None:
    documents = load(300)
    asked = [prompt for call in sampler.calls for prompt in call[0]]
    first = documents[0]
    assert first.tokens[: first.scored_from].tolist() == asked[0]
    assert plain_tokenizer.decode(asked[0]).endswith("assistant\n")
    corpus = make_windows(documents, plain_tokenizer, 512)
    window = corpus.windows[0]
    assert window.tokens.tolist() == first.tokens.tolist()
    assert window.scored.sum() == len(first.tokens) - first.scored_from
    assert window.scored[first.scored_from - 1 :].all()


def test_a_real_model_s_words_come_back_exactly(
    load: Load, checkpoint: Path, plain_tokenizer: "PreTrainedTokenizerBase"
) -> None:
    model = TransformersSampler(checkpoint)
    documents = load(256, sampler=model)
    [(asked, max_tokens, seed, temperature), *_] = model.calls
    again = TransformersSampler(checkpoint).sample(asked, max_tokens, seed, temperature)
    for document, prompt, sampled in zip(documents, asked, again, strict=False):
        assert document.tokens.tolist() == [*prompt, *sampled]
        assert document.scored_from == len(prompt)
    assert ids(load(256, sampler=model)) == ids(documents)


def test_a_second_call_draws_nothing_and_gives_the_same_tokens(load: Load, sampler: Drawing) -> None:
    first = load()
    calls = len(sampler.calls)
    assert ids(load()) == ids(first)
    assert len(sampler.calls) == calls


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"temperature": 0.5},
        {"identity": ReferenceIdentity("other", "t", "transformers 5")},
        {"identity": ReferenceIdentity("w", "other", "transformers 5")},
        {"identity": ReferenceIdentity("w", "t", "transformers 6")},
        {"tokens": 310},
    ],
)
def test_whatever_it_depends_on_makes_another_corpus(other: dict[str, object], load: Load, sampler: Drawing) -> None:
    load()
    calls = len(sampler.calls)
    load(**other)
    assert len(sampler.calls) > calls


def test_an_interrupted_corpus_goes_on_where_it_stopped(
    load: Load, settings: Callable[..., Settings], sampler: Drawing, tmp_path: Path
) -> None:
    whole = ids(load(2_000))
    asked = len(sampler.calls)
    assert asked >= 2
    newest = max((tmp_path / "home" / "self-corpora").rglob("*.json"))
    newest.unlink()
    assert ids(load(2_000)) == whole
    assert len(sampler.calls) == asked + 1


def test_a_base_model_continues_an_opening(load: Load, sampler: Drawing) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = None
    load(tokenizer=tokenizer)
    openings = {prompt.begin for many in prompts().values() for prompt in many}
    assert {tokenizer.decode(prompt) for call in sampler.calls for prompt in call[0]} <= openings


def test_a_bos_is_given_to_the_sampler_and_left_to_the_windows(
    load: Load, sampler: Drawing, bos_tokenizer: "PreTrainedTokenizerBase"
) -> None:
    tokenizer = make_tokenizer(bos=True)
    tokenizer.chat_template = None
    documents = load(tokenizer=tokenizer)
    assert all(prompt[0] == 0 and prompt[1] != 0 for call in sampler.calls for prompt in call[0])
    assert [0, *documents[0].tokens[: documents[0].scored_from].tolist()] == sampler.calls[0][0][0]
    window = make_windows(documents, tokenizer, 512).windows[0]
    assert window.tokens.tolist() == [0, *documents[0].tokens.tolist()]
    assert window.scored.sum() == len(documents[0].tokens) - documents[0].scored_from


def test_the_model_s_context_bounds_what_is_drawn(load: Load, sampler: Drawing) -> None:
    with refused(ErrorCode.WINDOW_TOO_LARGE) as caught:
        load(context=40)
    assert not sampler.calls
    longest = int(caught.value.detail.rstrip(".").split()[-1])
    documents = load(context=longest + 10)
    assert max(len(document.tokens) for document in documents if document.tokens is not None) <= longest + 10
    assert {call[1] for call in sampler.calls} == {10}


class Silent:
    def sample(self, prompts: list[list[int]], max_tokens: int, seed: int, temperature: float) -> list[list[int]]:
        return [[] for _ in prompts]


class Short:
    def sample(self, prompts: list[list[int]], max_tokens: int, seed: int, temperature: float) -> list[list[int]]:
        return [[5]]


@pytest.mark.parametrize("broken", [Silent(), Short()])
def test_a_model_that_says_nothing_ends_with_an_error(broken: object, load: Load) -> None:
    with refused(ErrorCode.ENGINE_FAILED):
        load(sampler=broken)


def test_it_tells_how_far_it_is_and_stops_between_batches(load: Load, sampler: Drawing) -> None:
    told: list[tuple[str, int, int]] = []

    class StoppedError(Exception):
        pass

    def check() -> None:
        if sampler.calls:
            raise StoppedError

    with pytest.raises(StoppedError):
        load(2_000, progress=lambda *step: told.append(step), check_cancelled=check)
    assert len(sampler.calls) == 1
    assert told == [("sample", 0, 2_000)]
    load(2_000, progress=lambda *step: told.append(step))
    done = [step[1] for step in told[1:]]
    assert done == sorted(done)
    assert told[-1] == ("sample", 2_000, 2_000)
