"""The worst positions: largest KL first, no document fills the list, passages do not overlap and read as text."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.support.values import random_values
from workers.distributions.token_values import Positions
from workers.measuring.worst import (
    CONTEXT,
    PASSAGES,
    WORST_TOKENS,
    passage_indices,
    passages,
    pieces,
    worst_indices,
    worst_tokens,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def decode(tokens: Sequence[int]) -> str:
    return "".join(LETTERS[token % 26] for token in tokens)


def of_bytes(tokens: Sequence[int]) -> str:
    """A tokenizer of single bytes."""
    return bytes(tokens).decode("utf-8", errors="replace")


def positions(document: NDArray[np.int64]) -> Positions:
    place = np.concatenate([np.arange(count) for count in np.bincount(document)])
    return Positions(document, document, place, place + 1, place)


def test_the_largest_come_first_and_a_document_gives_a_few() -> None:
    document = np.repeat(np.arange(40), 50)
    kl = np.random.default_rng(0).gamma(1.0, size=document.size)
    kl[document == 7] += 100
    chosen = worst_indices(kl, document, np.ones(kl.size, dtype=np.bool_))
    assert len(chosen) == WORST_TOKENS
    assert np.all(np.diff(kl[chosen]) <= 0)
    counts = Counter(document[chosen].tolist())
    assert counts[7] == max(counts.values()) == 3
    assert chosen[0] == int(np.argmax(kl))
    # Nothing left out is larger than what was taken, except where its document already gave three.
    rest = np.setdiff1d(np.arange(kl.size), chosen)
    open_documents = [index for index in rest if counts[int(document[index])] < 3]
    assert kl[open_documents].max() <= kl[chosen].min()


def test_what_does_not_differ_or_is_not_finite_is_not_among_the_worst() -> None:
    kl = np.array([0.0, 2.0, np.nan, 1.0, 5.0])
    usable = np.array([True, True, False, True, False])
    assert worst_indices(kl, np.zeros(5, dtype=np.int64), usable) == [1, 3]


def test_rows_hold_ids_and_numbers_and_text_only_where_it_may_be_stored() -> None:
    values = random_values(6, seed=3)
    where = replace(positions(np.array([0, 0, 0, 1, 1, 1])), token_id=np.array([4, 5, 6, 7, 8, 9]))
    (row,) = worst_tokens(values, where, [4], ["a", "b"], ["prose", "code"], decode)
    assert (row.document, row.domain, row.position, row.token_id, row.token) == ("b", "code", 1, 8, "i")
    assert row.kl == values.kl[4]
    assert row.delta_p == pytest.approx(row.probability_candidate - row.probability_reference)
    assert row.probability_reference == pytest.approx(float(np.exp(values.logp_reference[4])))
    assert row.reference_top == LETTERS[values.top_reference[4] % 26]
    (bare,) = worst_tokens(values, where, [4], ["a", "b"], ["prose", "code"], None)
    assert (bare.token, bare.reference_top, bare.candidate_top) == (None, None, None)
    assert bare.kl == row.kl


def test_passages_do_not_overlap_and_take_few_of_a_document() -> None:
    document = np.repeat(np.arange(30), 200)
    kl = np.random.default_rng(4).gamma(0.3, size=document.size)
    kl[document == 3] += 50
    where = positions(document)
    chosen = passage_indices(kl, where, np.ones(kl.size, dtype=np.bool_))
    assert len(chosen) == PASSAGES
    assert chosen[0] == int(np.argmax(kl))
    assert max(Counter(document[chosen].tolist()).values()) == 3
    for first in chosen:
        for second in chosen:
            if first != second and document[first] == document[second]:
                assert abs(int(where.position[first]) - int(where.position[second])) > 2 * CONTEXT


def test_a_passage_holds_the_tokens_around_and_their_values_where_scored() -> None:
    values = random_values(100, seed=5)
    # The document's token 0 is predicted by nothing; scored position i is its token i + 1.
    where = Positions(np.zeros(100), np.zeros(100), np.arange(1, 101), np.arange(1, 101), np.arange(1, 101))
    usable = np.ones(100, dtype=np.bool_)
    usable[12] = False
    tokens = {0: np.arange(101, dtype=np.int32)}
    early, late = passages(values, where, [9, 79], tokens, ["a"], ["prose"], decode, usable)
    assert (early.document, early.domain, early.start) == ("a", "prose", 0)
    assert len(early.tokens) == 10 + CONTEXT + 1
    assert [token.text for token in early.tokens[:3]] == ["a", "b", "c"]
    assert early.tokens[0].kl is None
    assert early.tokens[10].kl == values.kl[9]
    assert early.tokens[13].kl is None
    assert (late.start, len(late.tokens)) == (80 - CONTEXT, CONTEXT + 1 + 20)


def test_a_passage_ends_where_the_text_is_not_known() -> None:
    values = random_values(30, seed=6)
    where = Positions(np.zeros(30), np.zeros(30), np.arange(30), np.arange(30), np.arange(30))
    tokens = np.arange(30, dtype=np.int32)
    tokens[[5, 20]] = -1
    (found,) = passages(values, where, [10], {0: tokens}, ["a"], ["x"], decode, np.ones(30, dtype=np.bool_))
    assert (found.start, len(found.tokens)) == (6, 14)


@settings(max_examples=50)
@given(st.text(max_size=12))
def test_pieces_join_to_the_text_however_its_characters_are_cut(text: str) -> None:
    tokens = list(text.encode("utf-8", errors="replace"))
    assert "".join(pieces(tokens, of_bytes)) == of_bytes(tokens)
