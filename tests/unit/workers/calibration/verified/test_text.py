"""Text as it comes: the same as decoding everything at once, whole characters, nothing past a stop string."""

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models

from tests.support.tiny import make_tokenizer
from workers.calibration.verified.text import TextStream

TEXT = "The quick brown fox — naïve café, 1 234 €; 日本 jumps over the lazy dog."


@pytest.fixture(scope="module")
def tokenizer() -> object:
    return make_tokenizer().backend_tokenizer


@pytest.mark.parametrize("step", [1, 2, 5, 1000])
def test_pieces_make_the_text_that_all_tokens_make(tokenizer: object, step: int) -> None:
    ids = tokenizer.encode(TEXT).ids  # type: ignore[attr-defined]
    stream = TextStream(tokenizer, [])
    pieces = [stream.add(ids[begin : begin + step]) for begin in range(0, len(ids), step)]
    whole = "".join(pieces) + stream.end()
    assert whole == tokenizer.decode(ids)  # type: ignore[attr-defined]
    assert "\ufffd" not in whole


@pytest.mark.parametrize("step", [1, 3])
def test_a_stop_string_ends_the_text_before_it_even_across_tokens(tokenizer: object, step: int) -> None:
    ids = tokenizer.encode(TEXT).ids  # type: ignore[attr-defined]
    stream = TextStream(tokenizer, ["fox —", "dog"])
    shown = "".join(stream.add(ids[begin : begin + step]) for begin in range(0, len(ids), step)) + stream.end()
    assert stream.stopped
    assert shown == TEXT[: TEXT.index("fox —")].lstrip() or shown == TEXT[: TEXT.index("fox —")]


def test_what_only_begins_like_a_stop_string_is_shown_in_the_end(tokenizer: object) -> None:
    ids = tokenizer.encode("brown fo").ids  # type: ignore[attr-defined]
    stream = TextStream(tokenizer, ["fox"])
    first = stream.add(ids)
    assert "fo" not in first
    assert first + stream.end() == tokenizer.decode(ids)  # type: ignore[attr-defined]
    assert not stream.stopped


def test_no_more_tokens_are_used_than_complete_the_stop_string(tokenizer: object) -> None:
    ids = tokenizer.encode(TEXT).ids  # type: ignore[attr-defined]
    stream = TextStream(tokenizer, ["fox —"])
    shown = stream.add(ids)
    assert stream.stopped
    assert 0 < stream.used < len(ids)
    decode = tokenizer.decode  # type: ignore[attr-defined]
    assert "fox —" in decode(ids[: stream.used])
    assert "fox —" not in decode(ids[: stream.used - 1])
    assert decode(ids).startswith(shown)
    assert stream.add(ids) == ""
    assert stream.used == 0


def test_tokens_beyond_the_tokenizer_and_bytes_that_are_no_text_break_nothing(tokenizer: object) -> None:
    """Models pad their vocabularies, and a hot draw may give any bytes in any order."""
    size = tokenizer.get_vocab_size()  # type: ignore[attr-defined]
    rng = np.random.default_rng(0)
    for _ in range(20):
        ids = rng.integers(0, size + 20, 200).tolist()
        stream = TextStream(tokenizer, [], prompt=ids[:50])
        stream.add(ids[50:])
    assert TextStream(tokenizer, []).add([size, size + 5]) == ""


def test_the_first_token_is_written_as_what_follows_the_prompt() -> None:
    """A SentencePiece decoder drops the space before the first token of a text: an answer is not one."""
    pieces = Tokenizer(models.BPE({"\u2581the": 0, "\u2581fox": 1, "\u2581": 2}, []))
    pieces.decoder = decoders.Metaspace()
    assert TextStream(pieces, []).add([1]) == "fox"
    assert TextStream(pieces, [], prompt=[0]).add([1]) == " fox"
