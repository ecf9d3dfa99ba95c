"""Prompts of a trajectory job: the first tokens of the documents of a text source.

Plain text gives its first tokens, behind a BOS where the tokenizer puts one; with `chat` these first tokens stand as
the user's message in the chat template. A conversation is taken, through the template, with its tools, up to where its
first answer would begin; it needs none. A sampled document gives its tokens as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.text import Message
from app.kinds.trajectory.plan import check_opening, empty_prompt, opening, spread_over_domains
from workers.text.chat import prompt_tokens
from workers.text.documents import TextDocument
from workers.text.tokenization import bos_of, encode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Prompt:
    """A prompt: its document, and its tokens, BOS included."""

    document: str
    domain: str
    tokens: tuple[int, ...]
    conversation: bool


def make_prompts(
    documents: Sequence[TextDocument],
    tokenizer: PreTrainedTokenizerBase,
    *,
    count: int,
    length: int,
    chat: bool,
    check_cancelled: Callable[[], None] = lambda: None,
) -> list[Prompt]:
    """At most `count` prompts of at most `length` tokens of text each (a BOS, a template and conversations add theirs).

    Raises DOCUMENT_TOO_SHORT for a document without a token, and for one of white space alone that is to stand in the
    template. It raises the same for a conversation in which nothing is before its first answer. Also
    CHAT_TEMPLATE_MISSING, and INVALID_REQUEST if the template refuses a conversation."""
    bos = bos_of(tokenizer)
    found = []
    for document in spread_over_domains(documents, count):
        check_cancelled()
        found.append(_prompt(document, tokenizer, bos, length, chat=chat))
    return found


def check_context(prompts: Sequence[Prompt], tokens: int, context: int | None, *, model: str) -> None:
    """Raises WINDOW_TOO_LARGE if a prompt and `tokens` more do not fit the model's context."""
    if context is None:
        return
    for prompt in prompts:
        if len(prompt.tokens) + tokens > context:
            raise HemostatError(
                ErrorCode.WINDOW_TOO_LARGE,
                f"the prompt of document {prompt.document!r} has {len(prompt.tokens)} tokens; with {tokens} more it is "
                f"longer than the context of {model}, {context} tokens",
                hint="give fewer tokens or prompt_tokens, or leave the conversation out",
                pointer="/tokens",
            )


def _prompt(
    document: TextDocument, tokenizer: PreTrainedTokenizerBase, bos: int | None, length: int, *, chat: bool
) -> Prompt:
    check_opening(document, document.pointer, chat=chat)
    if document.messages is not None:
        before = prompt_tokens(tokenizer, opening(document.messages), tools=document.tools or ())
        return Prompt(document.id, document.domain, tuple(before.tolist()), conversation=True)
    if document.tokens is not None:
        tokens = [int(token) for token in document.tokens[:length]]
    else:
        # A token is seldom more than a hundred characters: the rest of a long document need not be read.
        tokens = encode(tokenizer, (document.text or "")[: 200 * length])[:length].tolist()
    if not tokens:
        raise empty_prompt(document.id, "has no token", document.pointer)
    if chat:
        message = Message(role="user", content=str(tokenizer.decode(tokens, clean_up_tokenization_spaces=False)))
        templated = prompt_tokens(tokenizer, [message])
        return Prompt(document.id, document.domain, tuple(templated.tolist()), conversation=True)
    return Prompt(document.id, document.domain, tuple(tokens if bos is None else [bos, *tokens]), conversation=False)
