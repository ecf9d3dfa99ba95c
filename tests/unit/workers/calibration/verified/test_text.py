"""Text as it comes: the same as decoding everything at once, whole characters, nothing past a stop string."""

import pytest

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
