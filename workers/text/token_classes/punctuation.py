"""Punctuation."""

from __future__ import annotations

import re

from workers.text.token_classes.text import Mask, TokenText

_SIGNS = re.compile(r"(?:[^\w\s]|_)+")


def punctuation(text: TokenText) -> Mask:
    """Tokens of punctuation and other signs alone, with or without white space: neither a letter nor a digit."""
    signs = text.every(match.span() for match in _SIGNS.finditer(text.text))
    if not text.conversation:
        return signs
    # <|im_end|> is no punctuation.
    return signs & text.touching((*text.contents, *text.tool_names, *text.tool_arguments))
