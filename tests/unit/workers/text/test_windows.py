from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pytest

from app.contracts.errors import ErrorCode
from app.contracts.text import Message
from tests.support.refusals import refused
from workers.text.chat import chat_tokens
from workers.text.documents import TextDocument
from workers.text.windows import Corpus, make_windows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BOS = 0


def exact(name: str, tokens: Sequence[int], scored_from: int = 0, domain: str = "text") -> TextDocument:
    return TextDocument(name, domain, tokens=np.asarray(tokens, dtype=np.int32), scored_from=scored_from)


def shapes(corpus: Corpus) -> list[tuple[int, int, list[int]]]:
    return [(window.document, window.start, window.tokens.tolist()) for window in corpus.windows]


def test_windows_do_not_overlap_do_not_cross_documents_and_leave_out_a_single_token(
    plain_tokenizer: "PreTrainedTokenizerBase",
) -> None:
    documents = [exact("a", range(10, 19)), exact("b", range(20, 26)), exact("c", range(30, 33))]
    corpus = make_windows(documents, plain_tokenizer, 4)
    assert shapes(corpus) == [
        (0, 0, [10, 11, 12, 13]),
        (0, 4, [14, 15, 16, 17]),  # 18 is left: nothing before it in its window
        (1, 0, [20, 21, 22, 23]),
        (1, 4, [24, 25]),
        (2, 0, [30, 31, 32]),
    ]
    assert [window.scored.tolist() for window in corpus.windows] == [[True] * n for n in (3, 3, 3, 1, 2)]
    assert (corpus.window, corpus.stride, corpus.bos) == (4, 4, False)
    assert (corpus.tokens, corpus.scored, corpus.left_out_tokens, corpus.left_out_windows) == (17, 12, 1, 0)
    assert [(info.id, info.tokens, info.scored) for info in corpus.documents] == [("a", 9, 6), ("b", 6, 4), ("c", 3, 2)]


def test_with_a_bos_each_window_holds_it_and_every_token_of_the_text_is_predicted(
    bos_tokenizer: "PreTrainedTokenizerBase",
) -> None:
    corpus = make_windows([exact("a", range(10, 17)), exact("b", [20, 21])], bos_tokenizer, 4)
    assert shapes(corpus) == [
        (0, 0, [BOS, 10, 11, 12]),
        (0, 3, [BOS, 13, 14, 15]),
        (0, 6, [BOS, 16]),
        (1, 0, [BOS, 20, 21]),
    ]
    assert [window.scored.tolist() for window in corpus.windows] == [[True] * n for n in (3, 3, 1, 2)]
    assert (corpus.window, corpus.stride, corpus.bos) == (4, 3, True)
    assert (corpus.tokens, corpus.scored, corpus.left_out_tokens) == (13, 9, 0)


@pytest.mark.parametrize("which", ["plain_tokenizer", "bos_tokenizer"])
@pytest.mark.parametrize("window", [2, 3, 7, 64])
def test_each_token_of_a_text_is_predicted_at_most_once_and_counts_agree(
    which: str, window: int, request: pytest.FixtureRequest
) -> None:
    tokenizer = request.getfixturevalue(which)
    text = "The quick brown fox jumps over the lazy dog. " * 3
    documents = [TextDocument("a", "prose", text=text), TextDocument("b", "prose", text="zero one two")]
    corpus = make_windows(documents, tokenizer, window)
    expected = {
        number: tokenizer(document.text, add_special_tokens=False)["input_ids"]
        for number, document in enumerate(documents)
    }
    predicted: list[tuple[int, int]] = []
    for item in corpus.windows:
        assert 2 <= len(item.tokens) <= window
        text_tokens = item.tokens[1:] if corpus.bos else item.tokens
        assert text_tokens.tolist() == expected[item.document][item.start : item.start + len(text_tokens)]
        predicted += [
            (item.document, item.start + position + (0 if corpus.bos else 1))
            for position in np.flatnonzero(item.scored)
        ]
    assert len(predicted) == len(set(predicted)) == corpus.scored == sum(info.scored for info in corpus.documents)
    assert corpus.tokens == sum(len(item.tokens) for item in corpus.windows)
    every = {(number, position) for number, ids in expected.items() for position in range(len(ids))}
    if corpus.bos:
        assert set(predicted) == every
    else:
        assert set(predicted) == {(number, position) for number, position in every if position % window}


@pytest.mark.parametrize("which", ["plain_tokenizer", "bos_tokenizer"])
@pytest.mark.parametrize("text", ["", "a"])
def test_a_document_of_fewer_than_two_tokens_is_named(which: str, text: str, request: pytest.FixtureRequest) -> None:
    documents = [
        TextDocument("fine", "text", text="one two three"),
        TextDocument("d7", "text", text=text, pointer="/text/documents/1"),
    ]
    with refused(ErrorCode.DOCUMENT_TOO_SHORT, "/text/documents/1", match="'d7'"):
        make_windows(documents, request.getfixturevalue(which), 8)


def test_of_a_conversation_only_the_assistant_is_scored(smollm2_tokenizer: "PreTrainedTokenizerBase") -> None:
    messages = (
        Message(role="user", content="Name a colour of the sky in the evening, and say why it has it."),
        Message(role="assistant", content="Red."),
        Message(role="user", content="And another?"),
        Message(role="assistant", content="Violet, sometimes."),
    )
    documents = [TextDocument("chat", "dialogue", messages=messages), TextDocument("t", "prose", text="one two three")]
    corpus = make_windows(documents, smollm2_tokenizer, 16)
    assert corpus.chat_template
    assistant = chat_tokens(smollm2_tokenizer, messages, name="x")
    assert smollm2_tokenizer.decode(assistant.tokens[assistant.scored]) == "Red.<|im_end|>Violet, sometimes.<|im_end|>"
    scored = [
        window.start + 1 + int(position)
        for window in corpus.windows
        if window.document == 0
        for position in np.flatnonzero(window.scored)
    ]
    # nothing predicts the first token of a window
    assert scored == [int(position) for position in np.flatnonzero(assistant.scored) if position % 16]
    assert all(window.scored.any() for window in corpus.windows)
    # the head of the conversation is longer than a window, and nothing of it counts
    assert corpus.left_out_windows >= 1
    assert corpus.windows[0].start >= 16
    assert not make_windows(documents[1:], smollm2_tokenizer, 16).chat_template
    assert corpus.conversations == 1
    assert make_windows(documents[1:], smollm2_tokenizer, 16).conversations == 0


def test_conversations_of_which_all_is_scored_are_counted(smollm2_tokenizer: "PreTrainedTokenizerBase") -> None:
    messages = (Message(role="user", content="And another?"), Message(role="assistant", content="Violet, sometimes."))
    documents = [
        TextDocument("whole", "dialogue", messages=messages, scored="all"),
        TextDocument("answers", "dialogue", messages=messages),
        TextDocument("t", "prose", text="one two three"),
    ]
    corpus = make_windows(documents, smollm2_tokenizer, 64)
    assert (corpus.conversations, corpus.whole_conversations) == (2, 1)
    assert corpus.documents[0].scored == corpus.documents[0].tokens - 1 > corpus.documents[1].scored
    assert make_windows(documents[1:], smollm2_tokenizer, 64).whole_conversations == 0


def test_documents_of_the_same_tokens_are_counted(plain_tokenizer: "PreTrainedTokenizerBase") -> None:
    documents = [exact("a", [10, 11]), exact("b", [10, 11, 12]), exact("c", [10, 11]), exact("d", [10, 11])]
    assert make_windows(documents, plain_tokenizer, 4).repeated == 2
    assert make_windows(documents[:2], plain_tokenizer, 4).repeated == 0


def test_a_mask_is_cut_with_its_window(plain_tokenizer: "PreTrainedTokenizerBase") -> None:
    corpus = make_windows([exact("self", range(10, 21), scored_from=6)], plain_tokenizer, 4)
    # tokens 10-13 hold nothing scored; 16 (index 6) is the first that counts, 18 (index 8) stands first in its window
    assert [(window.start, window.scored.tolist()) for window in corpus.windows] == [
        (4, [False, True, True]),
        (8, [True, True]),
    ]
    assert (corpus.left_out_windows, corpus.scored, corpus.documents[0].scored) == (1, 4, 4)


def test_a_bos_that_the_template_writes_is_not_doubled(bos_tokenizer: "PreTrainedTokenizerBase") -> None:
    messages = (Message(role="user", content="hi"), Message(role="assistant", content="hello there"))
    corpus = make_windows([TextDocument("c", "dialogue", messages=messages)], bos_tokenizer, 64)
    [window] = corpus.windows
    assert window.tokens[0] == BOS
    assert window.tokens[1] != BOS
    assert bos_tokenizer.decode(window.tokens).startswith("<s>user\nhi</s>")


def test_the_fingerprint_is_of_what_is_measured(
    plain_tokenizer: "PreTrainedTokenizerBase", bos_tokenizer: "PreTrainedTokenizerBase"
) -> None:
    def fingerprint(
        *documents: TextDocument, window: int = 4, tokenizer: "PreTrainedTokenizerBase" = plain_tokenizer
    ) -> str:
        return make_windows(documents, tokenizer, window).fingerprint

    base = fingerprint(exact("a", range(10, 18)))
    assert len(base) == 64
    assert base == fingerprint(exact("other name", range(10, 18), domain="prose"))
    others = [
        fingerprint(exact("a", [*range(10, 17), 99])),
        fingerprint(exact("a", range(10, 14)), exact("b", range(14, 18))),
        fingerprint(exact("a", range(10, 18)), window=5),
        fingerprint(exact("a", range(10, 18), scored_from=2)),
        fingerprint(exact("a", range(10, 18), scored_from=3)),
        fingerprint(exact("a", range(10, 18)), tokenizer=bos_tokenizer),
    ]
    assert len({base, *others}) == 7


def test_it_tells_how_far_it_is_and_stops_between_documents(plain_tokenizer: "PreTrainedTokenizerBase") -> None:
    documents = [TextDocument(str(number), "text", text="one two three") for number in range(3)]
    told: list[tuple[str, int, int]] = []

    class StoppedError(Exception):
        pass

    def check() -> None:
        if len(told) == 2:
            raise StoppedError

    make_windows(documents, plain_tokenizer, 8, progress=lambda *step: told.append(step))
    assert told == [("tokenize", done, 3) for done in range(4)]
    told.clear()
    with pytest.raises(StoppedError):
        make_windows(documents, plain_tokenizer, 8, progress=lambda *step: told.append(step), check_cancelled=check)
