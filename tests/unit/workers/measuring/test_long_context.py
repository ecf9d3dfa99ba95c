"""What a reference of a short context reads, against a model that remembers what it was given."""

import numpy as np
import pytest
import torch

from tests.support.tiny import make_tokenizer
from workers.measuring.long_context import cut, reference_limit
from workers.measuring.positions import positions_of
from workers.text.documents import TextDocument
from workers.text.windows import Corpus, make_windows

WINDOW = 100


def corpus(*, bos: bool, masked: bool = False) -> Corpus:
    tokenizer = make_tokenizer(bos=bos)
    rng = np.random.default_rng(0)
    documents = []
    for number, length in enumerate((340, 7, 100, 41)):
        tokens = rng.integers(2, 300, length).astype(np.int32)
        documents.append(TextDocument(str(number), "text", tokens=tokens, scored_from=5 if masked else 0))
    return make_windows(documents, tokenizer, WINDOW)


def remembered(tokens: np.ndarray) -> torch.Tensor:
    """A model whose state after each token is: how many it has read, the first (after a BOS), and the last."""
    rows = [
        (index + 1, tokens[min(1, index)] if tokens[0] == 0 else tokens[0], token) for index, token in enumerate(tokens)
    ]
    return torch.tensor(np.asarray(rows), dtype=torch.float32)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize("limit", [4, 16, 33, 64, 99])
def test_every_position_is_scored_once_after_at_least_half_of_the_context(limit: int, bos: bool, masked: bool) -> None:
    whole = corpus(bos=bos, masked=masked)
    read = cut(whole, limit)
    assert max(len(window.tokens) for window in read.corpus.windows) == limit
    assert all(window.tokens[0] == 0 for window in read.corpus.windows) == bos
    here, there = positions_of(whole), positions_of(read.corpus)
    for name in ("document", "position", "token_id"):
        assert np.array_equal(getattr(here, name), getattr(there, name)), name
    assert there.context.max() < limit
    far = here.context >= limit
    assert (there.context[far] >= limit - limit // 2).all()
    assert np.array_equal(here.context[~far], there.context[~far])
    states = read.states(lambda index: remembered(read.corpus.windows[index].tokens))
    for number, window in enumerate(whole.windows):
        state = states(number)
        assert state.shape == (len(window.tokens), 3)
        for row in range(len(window.tokens) - 1):
            count, first, last = state[row].tolist()
            assert last == window.tokens[row]
            begin = 0 if row < limit - 1 else row + 1 - int(count) + bos
            if row < limit - 1:
                assert count == row + 1
            if row > 0:
                assert first == window.tokens[begin if begin or not bos else 1]


def test_a_corpus_read_by_another_context_is_another_text() -> None:
    whole = corpus(bos=False)
    assert len({whole.fingerprint, cut(whole, 16).corpus.fingerprint, cut(whole, 32).corpus.fingerprint}) == 3


def test_only_a_shorter_context_cuts() -> None:
    assert reference_limit(512, 256) == 256
    assert reference_limit(256, 256) is None
    assert reference_limit(512, None) is None
    with pytest.raises(ValueError, match="fewer than four"):
        cut(corpus(bos=False), 3)
