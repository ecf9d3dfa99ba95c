"""Scored positions of a corpus: which token each predicts, from how much context."""

from dataclasses import replace

import numpy as np
import pytest

from workers.measuring.positions import UNKNOWN, document_tokens, positions_of
from workers.text.windows import Corpus, DocumentInfo, Window


def corpus(windows: list[Window], lengths: list[int], *, bos: bool) -> Corpus:
    return Corpus(
        windows=windows,
        documents=tuple(DocumentInfo(f"d{n}", "prose", length, length - 1) for n, length in enumerate(lengths)),
        window=4,
        stride=3 if bos else 4,
        bos=bos,
        chat_template=False,
        tokens=0,
        scored=0,
        left_out_tokens=0,
        left_out_windows=0,
        fingerprint="",
        protocol="",
    )


def window(document: int, start: int, tokens: list[int], scored: list[bool] | None = None) -> Window:
    mask = np.ones(len(tokens) - 1, dtype=np.bool_) if scored is None else np.array(scored)
    return Window(document, start, np.array(tokens, dtype=np.int32), mask)


def test_without_a_bos_the_first_token_of_each_window_is_not_predicted() -> None:
    made = corpus([window(0, 0, [10, 11, 12, 13]), window(0, 4, [14, 15]), window(1, 0, [20, 21])], [6, 2], bos=False)
    found = positions_of(made)
    assert found.document.tolist() == [0, 0, 0, 0, 1]
    assert found.window.tolist() == [0, 0, 0, 1, 2]
    assert found.position.tolist() == [1, 2, 3, 5, 1]
    assert found.context.tolist() == [1, 2, 3, 1, 1]
    assert found.token_id.tolist() == [11, 12, 13, 15, 21]
    assert found.domain is not None
    assert found.domain.tolist() == [0] * 5


def test_positions_carry_the_domain_of_their_document() -> None:
    made = corpus([window(0, 0, [10, 11]), window(1, 0, [12, 13]), window(2, 0, [14, 15, 16])], [2, 2, 3], bos=False)
    documents = [replace(one, domain=name) for one, name in zip(made.documents, ["b", "a", "b"], strict=True)]
    found = positions_of(replace(made, documents=tuple(documents))).domain
    assert found is not None
    assert found[0] == found[2] == found[3] != found[1]


def test_with_a_bos_every_token_is_predicted() -> None:
    made = corpus([window(0, 0, [1, 10, 11, 12]), window(0, 3, [1, 13])], [4], bos=True)
    found = positions_of(made)
    assert found.position.tolist() == [0, 1, 2, 3]
    assert found.context.tolist() == [1, 2, 3, 1]
    assert found.token_id.tolist() == [10, 11, 12, 13]


@pytest.mark.parametrize("bos", [False, True])
def test_a_documents_tokens_come_back_without_bos_and_with_gaps_marked(bos: bool) -> None:
    begin = [1] if bos else []
    windows = [window(0, 0, [*begin, 10, 11, 12]), window(1, 0, [*begin, 20, 21]), window(0, 5, [*begin, 15, 16])]
    found = document_tokens(corpus(windows, [8, 2], bos=bos), {0})
    assert set(found) == {0}
    assert found[0].tolist() == [10, 11, 12, UNKNOWN, UNKNOWN, 15, 16, UNKNOWN]
