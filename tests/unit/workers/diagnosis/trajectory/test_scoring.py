"""Texts as windows: what is scored, what is shared, and where each text's values stand."""

import numpy as np
import pytest

from workers.diagnosis.trajectory.prompts import Prompt
from workers.diagnosis.trajectory.scoring import TextPool, spans
from workers.measuring.positions import positions_of

PROMPTS = [Prompt("a", "prose", (9, 8, 7), conversation=False), Prompt("b", "code", (6,), conversation=True)]


def test_the_same_text_after_the_same_prompt_is_one():
    pool = TextPool(PROMPTS)
    assert [pool.add(0, [1, 2]), pool.add(0, (1, 2)), pool.add(1, [1, 2]), pool.add(0, [1])] == [0, 0, 1, 2]


def test_every_generated_token_is_scored_and_no_token_of_the_prompt():
    pool = TextPool(PROMPTS)
    window = pool.window(pool.add(0, [1, 2]))
    assert window.tokens.tolist() == [9, 8, 7, 1, 2]
    assert window.scored.tolist() == [False, False, True, True]
    assert pool.window(pool.add(1, [5])).scored.tolist() == [True]


def test_positions_belong_to_prompts_and_predict_the_generated_tokens():
    pool = TextPool(PROMPTS)
    corpus = pool.corpus([pool.add(0, [1, 2]), pool.add(1, [5]), pool.add(0, [3])], 8, bos=False)
    where = positions_of(corpus)
    assert where.document.tolist() == [0, 0, 1, 0]
    assert where.token_id.tolist() == [1, 2, 5, 3]
    assert [(span.start, span.stop) for span in spans(corpus)] == [(0, 2), (2, 3), (3, 4)]
    assert corpus.scored == 4
    assert [document.scored for document in corpus.documents] == [3, 1]
    assert corpus.conversations == 1


def test_the_fingerprint_tells_texts_and_split_apart():
    def fingerprint(*texts):
        pool = TextPool(PROMPTS)
        return pool.corpus([pool.add(*text) for text in texts], 8, bos=False).fingerprint

    one = fingerprint((0, [1, 2]), (1, [5]))
    assert one == fingerprint((0, [1, 2]), (1, [5]))
    assert (
        len({one, fingerprint((0, [1, 3]), (1, [5])), fingerprint((0, [1, 2])), fingerprint((1, [5]), (0, [1, 2]))})
        == 4
    )


def test_a_text_without_a_token_is_refused():
    with pytest.raises(ValueError, match="without a token"):
        TextPool(PROMPTS).add(0, np.zeros(0, dtype=np.int64).tolist())
