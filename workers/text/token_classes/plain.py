"""Classes that need no parser: numbers, punctuation, and what a conversation is made of."""

from __future__ import annotations

import re

import numpy as np

from workers.text.token_classes.text import Mask, TokenText

FIRST_TOKENS = 8
# Digits, and what separates them within a number, a date, a time or a version.
_NUMBER = re.compile(r"\d+(?:[.,:/\-–]\d+)*%?")
_SIGNS = re.compile(r"(?:[^\w\s]|_)+")


def numbers(text: TokenText) -> Mask:
    """Digits of any script, with the separators between them (3.14, 10,000, 09:30, 2031-03-14) and a percent sign."""
    return text.some(match.span() for match in _NUMBER.finditer(text.text))


def punctuation(text: TokenText) -> Mask:
    """Tokens of punctuation and other signs alone, with or without white space: neither a letter nor a digit."""
    signs = text.every(match.span() for match in _SIGNS.finditer(text.text))
    if not text.conversation:
        return signs
    # <|im_end|> is no punctuation.
    return signs & text.touching((*text.contents, *text.tool_names, *text.tool_arguments))


def template(text: TokenText) -> Mask:
    """Tokens of a conversation outside of all that was spoken: role names, markers and ends of turns, as the chat
    template writes them. Of a conversation whose answers alone are scored this is the end of the turn."""
    if not text.conversation:
        return np.zeros(len(text.offsets), dtype=np.bool_)
    return ~text.touching((*text.contents, *text.tool_names, *text.tool_arguments))


def answer_start(text: TokenText) -> Mask:
    """The first 8 tokens of each of the assistant's messages; of text sampled from the reference, of each document."""
    found = np.zeros(len(text.offsets), dtype=np.bool_)
    for span in text.answers:
        inside = np.flatnonzero(text.touching((span,)))
        found[inside[:FIRST_TOKENS]] = True
    return found
