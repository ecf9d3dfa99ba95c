"""Chat messages to tokens, and which of them are the assistant's.

A template that marks the assistant's part with `{% generation %}` is taken at its word. Any other template is asked:
each assistant message is replaced, in turn, by a placeholder, and what changes in the rendered text is where that
message stands. That holds whatever the template adds, strips, or does to earlier turns, and needs no knowledge of its
markers.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.text import Message
from workers.text.callbacks import CheckCancelled, never_cancelled
from workers.text.tokenization import Ids, Offsets, encode, encode_with_offsets

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Span = tuple[int, int]
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class ChatTokens:
    """A rendered conversation: `tokens` (T,) int32, a BOS only where the template writes it; `scored` (T,) bool."""

    tokens: Ids
    scored: npt.NDArray[np.bool_]


def has_template(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether the tokenizer brings a chat template."""
    return bool(getattr(tokenizer, "chat_template", None))


def chat_tokens(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Message],
    *,
    name: str,
    pointer: str = "",
    check_cancelled: CheckCancelled = never_cancelled,
) -> ChatTokens:
    """The conversation as the chat template renders it; scored is what the assistant wrote.

    Without `{% generation %}` the special token that ends the assistant's turn is scored too where it follows the
    message at once: the model writes it. A token that holds characters of both the template and the message counts as
    the assistant's.

    Raises CHAT_TEMPLATE_MISSING; INVALID_REQUEST where the template refuses the messages, DOCUMENT_TOO_SHORT where no
    token of the assistant's is in them.
    """
    template = _Template.of(tokenizer, name, pointer)
    if template.marks_assistant:
        text, spans = template.render(messages, return_assistant_tokens_mask=True)
    else:
        text, _ = template.render(messages)
        spans = _find_spans(template, messages, text, check_cancelled)
    tokens, offsets = encode_with_offsets(tokenizer, text, check_cancelled=check_cancelled)
    scored = _within(offsets, spans)
    if not template.marks_assistant:
        _add_turn_ends(tokenizer, tokens, offsets, spans, scored)
    if not scored.any():
        raise HemostatError(
            ErrorCode.DOCUMENT_TOO_SHORT,
            f"{name} has no token that the assistant wrote.",
            hint="Of a conversation only the assistant's messages are scored: give at least one, and not an empty one.",
            pointer=pointer,
        )
    return ChatTokens(tokens, scored)


def prompt_tokens(tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message]) -> Ids:
    """The conversation up to where the assistant is to write, (T,) int32, as the template renders it."""
    text, _ = _Template.of(tokenizer, "The prompt", "").render(messages, add_generation_prompt=True)
    return encode(tokenizer, text)


@dataclass(frozen=True)
class _Template:
    """A tokenizer's chat template, and what to name in errors."""

    source: str
    special_tokens: dict[str, Any]
    name: str
    pointer: str

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase", name: str, pointer: str) -> "_Template":
        if not has_template(tokenizer):
            raise HemostatError(
                ErrorCode.CHAT_TEMPLATE_MISSING,
                f"{name} is a conversation, and the reference's tokenizer has no chat template.",
                hint="Give the document as text, or add a chat_template.jinja beside the tokenizer.",
                pointer=pointer,
            )
        return cls(str(tokenizer.get_chat_template()), dict(tokenizer.special_tokens_map), name, pointer)

    @property
    def marks_assistant(self) -> bool:
        return _GENERATION.search(self.source) is not None

    def render(self, messages: Sequence[Message], **options: Any) -> tuple[str, list[Span]]:
        """The text, and the spans that the template marks where that was asked for."""
        import jinja2
        from transformers.utils.chat_template_utils import render_jinja_template

        conversation = [{"role": message.role, "content": message.content} for message in messages]
        try:
            # transformers renders in a sandbox: a template is part of a checkpoint and not trusted.
            result: Any = render_jinja_template(
                conversations=[conversation], chat_template=self.source, **(self.special_tokens | options)
            )
        except jinja2.TemplateError as error:
            said = str(error)[:200]
            # A template may quote a message in its refusal.
            quotes = any(message.content and message.content in str(error) for message in messages)
            raise HemostatError(
                ErrorCode.INVALID_REQUEST,
                f"{self.name}: the chat template refuses the messages" + ("." if quotes or not said else f": {said}"),
                hint="Roles and their order must be those that the model's chat template knows.",
                pointer=self.pointer,
            ) from None
        rendered, spans = result
        return rendered[0], [(int(start), int(end)) for start, end in spans[0]] if spans else []


def _find_spans(
    template: _Template, messages: Sequence[Message], text: str, check_cancelled: CheckCancelled
) -> list[Span]:
    """Where in the rendered `text` each assistant message stands."""
    spans = []
    for index, message in enumerate(messages):
        if message.role != "assistant" or not message.content.strip():
            continue
        check_cancelled()
        placeholder = _placeholder(message.content)
        changed = [*messages]
        changed[index] = Message(role="assistant", content=placeholder)
        other, _ = template.render(changed)
        start = _common_prefix(text, other)
        end = _common_prefix(text[start:][::-1], other[start:][::-1])
        if placeholder in other[start : len(other) - end]:
            spans.append((start, len(text) - end))
    return spans


def _placeholder(content: str) -> str:
    """A word that shares neither its first nor its last character with `content`, so that the change is exactly it."""
    stripped = content.strip()
    ends = {stripped[:1], stripped[-1:]}
    letter = next(letter for letter in "QZX" if letter not in ends)
    return letter * 24


def _common_prefix(first: str, second: str) -> int:
    """Length of the longest common prefix, by bisection: comparing slices is fast, comparing characters is not."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _within(offsets: Offsets, spans: Sequence[Span]) -> npt.NDArray[np.bool_]:
    """(T,) bool: tokens that hold a character of one of the spans."""
    scored = np.zeros(len(offsets), dtype=np.bool_)
    for start, end in spans:
        scored |= (offsets[:, 0] < end) & (offsets[:, 1] > start)
    return scored


def _add_turn_ends(
    tokenizer: "PreTrainedTokenizerBase",
    tokens: Ids,
    offsets: Offsets,
    spans: Sequence[Span],
    scored: npt.NDArray[np.bool_],
) -> None:
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    for _, end in spans:
        following = int(np.searchsorted(offsets[:, 0], end))
        if following < len(tokens) and offsets[following, 0] == end and int(tokens[following]) in special:
            scored[following] = True
