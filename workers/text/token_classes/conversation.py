"""What a conversation is made of: the template's own tokens, and where answers begin."""

from __future__ import annotations

import numpy as np

from workers.text.token_classes.text import Mask, TokenText

FIRST_TOKENS = 8


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
