"""From a document to what the classes get of it: text, the characters of each token, who said what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from workers.text.callbacks import CheckCancelled, never_cancelled
from workers.text.chat import Conversation
from workers.text.documents import TextDocument
from workers.text.token_classes.text import Lexicon, Mask, Span, TokenText
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
    """Exact tokens, decoded. Special tokens are the template's, the rest is what was spoken."""
    special = _special(tokens, tokenizer)
    text, offsets = _decoded_apart(tokens, special, tokenizer)
    begin = int(offsets[document.scored_from, 0]) if document.scored_from < len(offsets) else len(text)
    return TokenText(
        text,
        offsets,
        document.domain,
        conversation=bool(special.any()),
        contents=_said(offsets, special),
        answers=((begin, len(text)),),
        lexicon=lexicon,
    )


def read_continuation(
    prompt: Sequence[int], continuation: Sequence[int], tokenizer: PreTrainedTokenizerBase, *, turn: bool
) -> TokenText:
    """A prompt's tokens and those that a model wrote behind them, decoded as one text; its offsets are of both.

    Special tokens are the template's, no matter who wrote them; the rest is what was spoken. Where the continuation is
    a `turn` of its own, the assistant's, it is no part of the prompt's last paragraph. What the prompt's document is
    about says nothing of what was written: the text is of no domain. The lexicon is left empty."""
    tokens = np.asarray([*prompt, *continuation], dtype=np.int32)
    special = _special(tokens, tokenizer)
    text, offsets = _decoded_apart(tokens, special, tokenizer)
    begin = int(offsets[len(prompt), 0]) if continuation else len(text)
    return TokenText(
        text,
        offsets,
        conversation=True,
        contents=_said(offsets, special, cut=len(prompt) if turn else None),
        answers=((begin, len(text)),),
    )


def _special(tokens: Ids, tokenizer: PreTrainedTokenizerBase) -> Mask:
    """(T,) the tokenizer's special tokens."""
    special = [index for index, token in tokenizer.added_tokens_decoder.items() if token.special]
    return np.isin(tokens, np.asarray(special, dtype=np.int64))


def _said(offsets: Offsets, special_T: Mask, *, cut: int | None = None) -> tuple[Span, ...]:
    """The characters of each run of tokens that are not special, whole, so that a paragraph stays one; a run is broken
    before the token `cut`."""
    spans: list[Span] = []
    open_run = False
    for index, special in enumerate(special_T.tolist()):
        if special:
            open_run = False
            continue
        start, end = _span(offsets[index])
        if open_run and index != cut:
            spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
        else:
            spans.append((start, end))
        open_run = True
    return tuple(spans)


def _decoded_apart(tokens: Ids, special_T: Mask, tokenizer: PreTrainedTokenizerBase) -> tuple[str, Offsets]:
    """`decoded`, where no special token shares a character with others: bytes that a model left incomplete before it
    are no part of it."""
    text, parts = "", [np.zeros((0, 2), dtype=np.int32)]
    for run in np.split(tokens, np.flatnonzero(np.diff(special_T)) + 1):
        more, offsets = decoded(run, tokenizer)
        parts.append(offsets + len(text))
        text += more
    return text, np.concatenate(parts)


def decoded(tokens: Ids, tokenizer: PreTrainedTokenizerBase) -> tuple[str, Offsets]:
    """The text of exact tokens, and the characters of each (T, 2).

    Bytes of one character may be spread over tokens; all of them then have that character.
    """
    pieces: list[str] = []
    offsets = np.zeros((len(tokens), 2), dtype=np.int32)
    place = 0
    begin = 0
    last = 0  # where the tokens of the last character begin
    while begin < len(tokens):
        # Some tokenizers drop the space before the first token that they are given, which would join two words. So the
        # tokens of the character before go along, if they are one, and what they say is cut off again.
        from_, before = last, str(tokenizer.decode(tokens[last:begin].tolist(), clean_up_tokenization_spaces=False))
        if _REPLACEMENT in before:
            from_, before = begin, ""
        shown = ""
        pending = begin
        index = begin
        while index < len(tokens) and (index - begin < _AT_ONCE or pending < index):
            read = tokens[from_ : index + 1].tolist()
            whole = str(tokenizer.decode(read, clean_up_tokenization_spaces=False))[len(before) :]
            incomplete = whole.endswith(_REPLACEMENT) and index + 1 < len(tokens) and index - pending < 4
            if not incomplete:
                added = whole[len(shown) :] if whole.startswith(shown) else whole[-1:]
                offsets[pending : index + 1] = place + len(shown), place + len(shown) + len(added)
                shown += added
                last, pending = pending, index + 1
            index += 1
        pieces.append(shown)
        place += len(shown)
        begin = index
    return "".join(pieces), offsets


def _span(row: Offsets) -> Span:
    return int(row[0]), int(row[1])
