"""The part of a text that parts are swapped on."""

import numpy as np
import pytest
import torch

from app.contracts.errors import ErrorCode, HemostatError
from tests.support.tiny import make_tokenizer
from workers.diagnosis.attribute.subset import best_length, draw
from workers.measuring.positions import positions_of
from workers.text.documents import TextDocument
from workers.text.windows import make_windows

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "that", "lost", "what", "it", "knew"]


def corpus(lengths, window=64):
    rng = np.random.default_rng(0)
    documents = [
        TextDocument(id=f"d{n}", domain="prose", text=" ".join(rng.choice(WORDS, words)))
        for n, words in enumerate(lengths)
    ]
    return make_windows(documents, make_tokenizer(), window)


@pytest.mark.parametrize(
    ("lengths", "best"),
    [([64] * 5 + [3], 64), ([10, 10, 10, 10, 64], 64), ([20, 20, 20, 20, 64], 20), ([32, 64], 64), ([9], 9)],
)
def test_the_cut_covers_most_tokens(lengths, best):
    assert best_length(lengths) == best


def test_every_position_is_where_the_corpus_has_it():
    text = corpus([80, 90, 70, 60, 75, 66])
    positions = positions_of(text)
    found = draw(text, positions, tokens=10_000, seed=1)
    assert found.tokens_NL.shape == (len(found.windows), found.length)
    rows, columns = np.nonzero(found.scored_NL.numpy())
    assert len(found.where) == len(found.index) == len(rows)
    np.testing.assert_array_equal(found.where.window, np.asarray(found.windows)[rows])
    np.testing.assert_array_equal(found.where.context, columns + 1)
    np.testing.assert_array_equal(found.where.token_id, found.next_NL.numpy()[rows, columns])
    np.testing.assert_array_equal(positions.select(found.index).position, found.where.position)
    for row, number in enumerate(found.windows):
        np.testing.assert_array_equal(found.tokens_NL[row].numpy(), text.windows[number].tokens[: found.length])


def test_about_as_many_tokens_as_asked_for_are_taken_from_all_over():
    text = corpus([100] * 30)
    found = draw(text, positions_of(text), tokens=10 * 64, seed=0)
    assert len(found.windows) == 10
    spread = np.sort(found.windows)
    assert spread[0] < 10
    assert spread[-1] > len(text.windows) - 10
    assert list(found.windows) != sorted(found.windows)
    again = draw(text, positions_of(text), tokens=10 * 64, seed=0)
    assert torch.equal(found.tokens_NL, again.tokens_NL)


@pytest.mark.parametrize(("tokens", "documents"), [(384, 6), (200, 6), (96, 3)])
def test_few_tokens_are_spread_over_documents_in_shorter_windows(tokens, documents):
    """Six documents of three windows each: by whole windows of 64 tokens these came to less."""
    text = corpus([190, 150, 170, 180, 160, 140])
    found = draw(text, positions_of(text), tokens=tokens, seed=3)
    assert np.unique(found.where.document).size == documents
    assert len(found.windows) == len(set(found.windows))
    assert tokens * 0.8 <= found.tokens_NL.numel() <= tokens
    assert found.length >= 32


def test_windows_are_not_cut_where_whole_ones_come_to_six_documents():
    text = corpus([190, 150, 170, 180, 160, 140])
    assert draw(text, positions_of(text), tokens=6 * 64, seed=0).length == best_length(
        [len(one.tokens) for one in text.windows]
    )


def test_a_long_document_leaves_short_ones_their_turn():
    text = corpus([3000, 70, 70, 70, 70, 70])
    found = draw(text, positions_of(text), tokens=8 * 64, seed=0)
    assert set(found.where.document.tolist()) == set(range(6))


def conversations(*reads, scored=40, window=512):
    """Documents that begin with so many tokens that are only read."""
    rng = np.random.default_rng(1)
    documents = [
        TextDocument(
            id=f"c{n}", domain="chat", tokens=rng.integers(10, 200, read + scored).astype(np.int32), scored_from=read
        )
        for n, read in enumerate(reads)
    ]
    return make_windows(documents, make_tokenizer(), window)


def test_a_document_whose_scored_turn_comes_late_is_had_by_beginning_later():
    text = conversations(60, 5, 100, 8, 150, 30)
    positions = positions_of(text)
    found = draw(text, positions, tokens=256, seed=0)
    assert found.length == 256 // 6
    assert set(found.where.document.tolist()) == set(range(6))
    full = found.in_full_context
    assert len(full) == len(found.where)
    # those alone whose scored tokens a cut from the beginning would not reach
    assert set(found.where.document[~full].tolist()) == {0, 2, 4}
    rows, columns = np.nonzero(found.scored_NL.numpy())
    np.testing.assert_array_equal(positions.select(found.index).token_id, found.next_NL.numpy()[rows, columns])
    for row, (number, begin) in enumerate(zip(found.windows, found.starts, strict=True)):
        window = text.windows[number]
        own = found.tokens_NL[row].numpy()
        np.testing.assert_array_equal(own[1:], window.tokens[begin + 1 : begin + found.length])
        assert own[0] == window.tokens[0 if text.bos else begin]
        first = int(np.flatnonzero(found.scored_NL[row].numpy())[0])
        # a scored token has context, be it not all of it
        assert first >= min(found.length // 2, int(np.argmax(window.scored)))


def test_positions_of_the_first_windows_are_counted():
    text = corpus([100] * 6)
    found = draw(text, positions_of(text), tokens=10_000, seed=0)
    assert found.positions(2) == int(found.scored_NL[:2].sum())
    assert found.positions(len(found.windows)) == len(found.where)


def test_a_text_of_snippets_is_refused():
    text = corpus([3, 3], window=6)
    with pytest.raises(HemostatError) as error:
        draw(text, positions_of(text), tokens=100, seed=0)
    assert error.value.code == ErrorCode.DOCUMENT_TOO_SHORT
    assert error.value.pointer == "/text"
