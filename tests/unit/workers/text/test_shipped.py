"""The shipped corpora are part of the product: what is promised of them is held here."""

from collections import Counter
from itertools import combinations
from typing import TYPE_CHECKING, get_args

import pytest

from workers.text.documents import TextDocument
from workers.text.overlap import document_overlap, normalized
from workers.text.shipped import DATA, Corpus, load_shipped, shipped_documents
from workers.text.windows import make_windows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CORPORA: tuple[Corpus, ...] = get_args(Corpus)


@pytest.mark.parametrize(
    ("corpus", "documents", "domains", "tokens"),
    [("evaluation", 72, 8, range(16_000, 21_001)), ("calibration", 128, 10, range(24_000, 36_001))],
)
def test_it_is_large_and_varied_enough(
    corpus: Corpus, documents: int, domains: int, tokens: range, smollm2_tokenizer: "PreTrainedTokenizerBase"
) -> None:
    loaded = load_shipped(corpus)
    made = make_windows(loaded, smollm2_tokenizer, 512)
    counts = Counter(document.domain for document in loaded)
    assert len(loaded) >= documents
    assert len(counts) >= domains
    assert min(counts.values()) >= 6
    assert made.tokens in tokens
    lengths = [info.tokens for info in made.documents]
    # a document is one window, so that clusters are documents and nothing is lost at a cut
    assert max(lengths) <= 512
    assert max(lengths) > 2 * min(lengths) > 2 * 48
    assert all(info.scored >= 30 for info in made.documents)


def passages(documents: list[TextDocument], size: int = 50) -> set[str]:
    """Every run of so many characters."""
    texts = map(normalized, documents)
    return {text[start : start + size] for text in texts for start in range(len(text) - size + 1)}


@pytest.mark.parametrize("corpus", CORPORA)
def test_it_is_clean_text_with_ids_of_its_own(corpus: Corpus) -> None:
    data = (DATA / f"{corpus}.jsonl").read_bytes()
    text = data.decode("utf-8")
    assert text.endswith("\n")
    assert not {"\0", "\ufeff", "\ufffd", "\r"} & set(text)
    ids = [document.id for document in shipped_documents(corpus)]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("corpus", CORPORA)
def test_no_document_repeats_another(corpus: Corpus) -> None:
    loaded = load_shipped(corpus)
    assert len({normalized(document) for document in loaded}) == len(loaded)
    middle = len(loaded) // 2
    halves = [loaded[:middle], loaded[middle:]]
    quarters = [half[start::2] for half in halves for start in (0, 1)]
    assert not any(passages(first) & passages(second) for first, second in combinations(quarters, 2))


def test_evaluation_and_calibration_share_no_document_and_no_passage() -> None:
    evaluation, calibration = load_shipped("evaluation"), load_shipped("calibration")
    assert document_overlap(evaluation, calibration) == []
    assert not passages(evaluation) & passages(calibration)


def test_calibration_knows_every_domain_of_the_evaluation() -> None:
    def domains(corpus: Corpus) -> set[str]:
        return {document.domain for document in shipped_documents(corpus)}

    assert domains("evaluation") < domains("calibration")


def test_the_first_documents_cover_the_domains_in_turn() -> None:
    count = len({document.domain for document in shipped_documents("evaluation")})
    first = load_shipped(documents=count)
    assert len({document.domain for document in first}) == count
    twice = load_shipped(documents=2 * count + 1)
    assert set(Counter(document.domain for document in twice[:-1]).values()) == {2}
    assert twice[:count] == first
    everything = load_shipped()
    assert {document.id for document in everything} == {document.id for document in shipped_documents("evaluation")}
    assert load_shipped(documents=5_000) == everything


def test_conversations_become_transcripts_where_there_is_no_template() -> None:
    plain = load_shipped(chat_template=False)
    assert all(document.text for document in plain)
    chat = next(document for document in load_shipped() if document.messages)
    transcript = next(document for document in plain if document.id == chat.id)
    assert all(message.content in transcript.text for message in chat.messages)
    assert transcript.text.startswith(("User: ", "System: "))
