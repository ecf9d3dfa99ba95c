"""Documents whose tokens are words and signs, so that a mask reads as the text it chooses."""

import re

import numpy as np

from workers.text.token_classes.names import lexicon_of
from workers.text.token_classes.text import Mask, TokenText

# As a byte-level BPE splits: a word with the space before it, signs one by one.
_TOKEN = re.compile(r" ?[^\W_]+|\s+(?=\s)|\s?[^\w\s]|_|\s")


def made(text: str, **fields: object) -> TokenText:
    offsets = np.asarray([match.span() for match in _TOKEN.finditer(text)], dtype=np.int32).reshape(-1, 2)
    assert "".join(text[start:end] for start, end in offsets) == text
    return TokenText(text, offsets, lexicon=lexicon_of([text]), **fields)  # type: ignore[arg-type]


def chosen(text: TokenText, mask: Mask) -> list[str]:
    """The runs of chosen tokens, as text without the white space around them."""
    found: list[str] = []
    last = -1
    for index in np.flatnonzero(mask):
        start, end = text.offsets[index]
        piece = text.text[start:end]
        if index == last + 1 and found:
            found[-1] += piece
        else:
            found.append(piece)
        last = index
    return [run.strip() for run in found]
