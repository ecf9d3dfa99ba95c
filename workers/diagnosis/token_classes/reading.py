"""From a document to what the classes are told of it: text, the characters of each token, who said what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workers.diagnosis.token_classes.text import Lexicon, Span, TokenText
from workers.text.callbacks import CheckCancelled, never_cancelled
from workers.text.chat import Conversation
from workers.text.documents import TextDocument
from workers.text.tokenization import Ids, Offsets, encode_with_offsets

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Tokens that are decoded together where a document has no text of its own.
_AT_ONCE = 64
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def read(
    document: TextDocument,
    tokenizer: PreTrainedTokenizerBase,
    bos: int | None,
    lexicon: Lexicon,
    check_cancelled: CheckCancelled = never_cancelled,
) -> tuple[Ids, TokenText]:
    """The document's tokens as `workers.text.windows` cuts them (no BOS), and its text.

    Raises what rendering a conversation raises; it was rendered before.
    """
    if document.tokens is not None:
        return document.tokens, _sampled(document.tokens, document, tokenizer, lexicon)
    if document.messages is None:
        tokens, offsets = encode_with_offsets(tokenizer, document.text or "", check_cancelled=check_cancelled)
        return tokens, TokenText(document.text or "", offsets, document.domain, lexicon=lexicon)
    chat = Conversation.of(tokenizer, document.messages, tools=document.tools or (), name=f"Document {document.id!r}")
    tokens, offsets = encode_with_offsets(tokenizer, chat.text, check_cancelled=check_cancelled)
    if bos is not None and len(tokens) and int(tokens[0]) == bos:
        tokens, offsets = tokens[1:], offsets[1:]
    names, arguments = chat.calls(check_cancelled)
    return tokens, TokenText(
        chat.text,
        offsets,
        document.domain,
        conversation=True,
        contents=tuple(chat.contents(check_cancelled)),
        answers=tuple(chat.answers(check_cancelled)),
        tool_names=tuple(names),
        tool_arguments=tuple(arguments),
        lexicon=lexicon,
    )


def _sampled(tokens: Ids, document: TextDocument, tokenizer: PreTrainedTokenizerBase, lexicon: Lexicon) -> TokenText:
    """Exact tokens, decoded. Special tokens are the template's, the rest is what was said."""
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    text, offsets = decoded(tokens, tokenizer)
    said = [_span(row) for token, row in zip(tokens.tolist(), offsets, strict=True) if token not in special]
    begin = int(offsets[document.scored_from, 0]) if document.scored_from < len(offsets) else len(text)
    return TokenText(
        text,
        offsets,
        document.domain,
        conversation=bool(special & set(tokens.tolist())),
        contents=tuple(said),
        answers=((begin, len(text)),),
        lexicon=lexicon,
    )


def decoded(tokens: Ids, tokenizer: PreTrainedTokenizerBase) -> tuple[str, Offsets]:
    """The text of exact tokens, and the characters of each (T, 2).

    Bytes of one character may be spread over tokens; all of them then have that character.
    """
    pieces: list[str] = []
    offsets = np.zeros((len(tokens), 2), dtype=np.int32)
    place = 0
    begin = 0
    while begin < len(tokens):
        shown = ""
        pending = begin
        index = begin
        while index < len(tokens) and (index - begin < _AT_ONCE or pending < index):
            whole = str(tokenizer.decode(tokens[begin : index + 1].tolist(), clean_up_tokenization_spaces=False))
            incomplete = whole.endswith(_REPLACEMENT) and index + 1 < len(tokens) and index - pending < 4
            if not incomplete:
                added = whole[len(shown) :] if whole.startswith(shown) else whole[-1:]
                offsets[pending : index + 1] = place + len(shown), place + len(shown) + len(added)
                shown += added
                pending = index + 1
            index += 1
        pieces.append(shown)
        place += len(shown)
        begin = index
    return "".join(pieces), offsets


def _span(row: Offsets) -> Span:
    return int(row[0]), int(row[1])
