"""Chat messages to tokens, and which of them are the assistant's.

A template that marks the assistant's part with `{% generation %}` is taken at its word. Any other template is asked:
each assistant message is replaced, in turn, by a placeholder, and what changes in the rendered text is where that
message is. That holds whatever the template adds, strips, or does to earlier turns, and needs no knowledge of its
markers.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.text import Message, Tool, ToolCall
from workers.text import tool_form
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
    """Whether the tokenizer brings a chat template. Of several, the one called default is taken, and no other."""
    template = getattr(tokenizer, "chat_template", None)
    return bool(template.get("default") if isinstance(template, dict) else template)


def template_writes(tokenizer: "PreTrainedTokenizerBase", *, calls: bool) -> bool:
    """Whether the chat template has a place for tool calls, or (`calls` false) for tools. Raises
    CHAT_TEMPLATE_MISSING."""
    return _Template.of(tokenizer, "The conversation", "").writes(calls=calls)


def chat_tokens(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Message],
    *,
    name: str,
    pointer: str = "",
    tools: Sequence[Tool] = (),
    everything: bool = False,
    check_cancelled: CheckCancelled = never_cancelled,
) -> ChatTokens:
    """The conversation as the chat template renders it; scored is what the assistant wrote, or `everything`.

    Without `{% generation %}` the special token that ends the assistant's turn is scored too where it follows the
    message at once: the model writes it. A token that holds characters of both the template and the message counts as
    the assistant's.

    Raises CHAT_TEMPLATE_MISSING; INVALID_REQUEST if the template refuses the messages, DOCUMENT_TOO_SHORT if no
    token of the assistant's is in them.
    """
    chat = Conversation.of(tokenizer, messages, tools=tools, name=name, pointer=pointer)
    tokens, offsets = encode_with_offsets(tokenizer, chat.text, check_cancelled=check_cancelled)
    if everything:
        return ChatTokens(tokens, np.ones(len(tokens), dtype=np.bool_))
    spans = chat.answers(check_cancelled)
    scored = _within(offsets, spans)
    if not chat.template.marks_assistant:
        _add_turn_ends(tokenizer, tokens, offsets, spans, scored)
    if not scored.any():
        raise HemostatError(
            ErrorCode.DOCUMENT_TOO_SHORT,
            f"{name} has no token that the assistant wrote.",
            hint="Only the assistant's messages of a conversation are scored: give at least one that is not empty.",
            pointer=pointer,
        )
    return ChatTokens(tokens, scored)


def prompt_tokens(
    tokenizer: "PreTrainedTokenizerBase", messages: Sequence[Message], *, tools: Sequence[Tool] = ()
) -> Ids:
    """The conversation up to where the assistant is to write, (T,) int32, as the template renders it."""
    template = _Template.of(tokenizer, "The prompt", "")
    messages, tools = template.fitted(messages, tools)
    text, _ = template.render(messages, tools=tools, add_generation_prompt=True)
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

    def fitted(
        self, messages: Sequence[Message], tools: Sequence[Tool]
    ) -> tuple[tuple[Message, ...], tuple[Tool, ...]]:
        """Messages and tools as the template can write them: what it has no place for is in the messages."""
        if any(message.tool_calls for message in messages) and not self.writes(calls=True):
            messages = tool_form.with_calls(messages)
        if tools and not self.writes(calls=False):
            messages, tools = tool_form.with_tools(messages, tools), ()
        return tuple(messages), tuple(tools)

    def writes(self, *, calls: bool) -> bool:
        """Whether the template writes tool calls, or tools. It is asked, since templates differ in what they call
        it."""
        mark = "Qzx" * 8
        answer = Message(role="assistant", content="")
        if calls:
            answer = Message(role="assistant", tool_calls=(ToolCall(name=mark, arguments={}),))
        tools = () if calls else (Tool(name=mark, parameters={"type": "object", "properties": {}}),)
        try:
            text, _ = self.render([Message(role="user", content="a"), answer][: 2 if calls else 1], tools=tools)
        except HemostatError:
            return False
        return mark in text

    def render(
        self, messages: Sequence[Message], *, tools: Sequence[Tool] = (), **options: Any
    ) -> tuple[str, list[Span]]:
        """The text, and the spans that the template marks where that was asked for."""
        import jinja2
        from transformers.utils.chat_template_utils import render_jinja_template

        conversation = [_as_template(message) for message in messages]
        schemas: list[Any] | None = [tool_form.tool_schema(tool) for tool in tools] or None
        try:
            # transformers renders in a sandbox: a template is part of a checkpoint and not trusted.
            result: Any = render_jinja_template(
                conversations=[conversation],
                chat_template=self.source,
                tools=schemas,
                **(self.special_tokens | options),
            )
        # A template is a program: beside its own refusals it fails as programs do, on a type or a key. Some in the
        # wild take arguments of calls as text alone.
        except (
            jinja2.TemplateError,
            TypeError,
            ValueError,
            ArithmeticError,
            LookupError,
            AttributeError,
            RecursionError,
        ) as error:
            # What is not the template's own text may repeat a message.
            said = f": {error}" if str(error) and str(error) in self.source else "."
            raise HemostatError(
                ErrorCode.INVALID_REQUEST,
                f"{self.name}: the chat template refuses the messages{said}",
                hint="Use the roles, and the order of roles, that the model's chat template accepts.",
                pointer=self.pointer,
            ) from None
        rendered, spans = result
        return rendered[0], [(int(start), int(end)) for start, end in spans[0]] if spans else []


@dataclass(frozen=True)
class Conversation:
    """A rendered conversation, and where in its `text` each part of its `messages` is.

    `messages` and `tools` are as the template wrote them: a template without a place for calls has them in contents.
    """

    template: _Template
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...]
    text: str
    marked: tuple[Span, ...]

    @classmethod
    def of(
        cls,
        tokenizer: "PreTrainedTokenizerBase",
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        name: str,
        pointer: str = "",
    ) -> "Conversation":
        """Renders it. Raises CHAT_TEMPLATE_MISSING, and INVALID_REQUEST if the template refuses the messages."""
        template = _Template.of(tokenizer, name, pointer)
        messages, tools = template.fitted(messages, tools)
        options = {"return_assistant_tokens_mask": True} if template.marks_assistant else {}
        text, marked = template.render(messages, tools=tools, **options)
        return cls(template, messages, tools, text, tuple(marked))

    def answers(self, check_cancelled: CheckCancelled = never_cancelled) -> list[Span]:
        """What the assistant wrote: the template's own marks, else each of its messages, calls included."""
        if self.template.marks_assistant:
            return list(self.marked)
        found = []
        for index, message in enumerate(self.messages):
            if message.role == "assistant" and (message.content.strip() or message.tool_calls):
                check_cancelled()
                word = _placeholder(message.content)
                found += self._where(index, Message(role="assistant", content=word), word)
        return found

    def contents(self, check_cancelled: CheckCancelled = never_cancelled) -> list[Span]:
        """What anybody said, calls left out."""
        found = []
        for index, message in enumerate(self.messages):
            if message.content.strip():
                check_cancelled()
                word = _placeholder(message.content)
                found += self._where(index, message.model_copy(update={"content": word}), word)
        return found

    def calls(self, check_cancelled: CheckCancelled = never_cancelled) -> tuple[list[Span], list[Span]]:
        """Names and arguments of the calls that the template wrote."""
        names: list[Span] = []
        arguments: list[Span] = []
        for index, message in enumerate(self.messages):
            for number, call in enumerate(message.tool_calls or ()):
                check_cancelled()
                word = _placeholder(call.name)
                names += self._where(
                    index, _with_call(message, number, ToolCall(name=word, arguments=call.arguments)), word
                )
                other = _with_call(message, number, ToolCall(name=call.name, arguments={word: word}))
                arguments += (_whole(self.text, span) for span in self._where(index, other, word))
        return names, arguments

    def _where(self, index: int, other: Message, word: str) -> list[Span]:
        """Where the text changes when a message is another one that holds `word`; nothing where `word` is not shown."""
        changed = (*self.messages[:index], other, *self.messages[index + 1 :])
        text, _ = self.template.render(changed, tools=self.tools)
        start = _common_prefix(self.text, text)
        end = _common_prefix(self.text[start:][::-1], text[start:][::-1])
        return [(start, len(self.text) - end)] if word in text[start : len(text) - end] else []


def _as_template(message: Message) -> dict[str, Any]:
    """The message as templates take it."""
    told: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        told["tool_calls"] = [
            {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    return told


def _with_call(message: Message, number: int, call: ToolCall) -> Message:
    """The message with another call in the place of one of its own."""
    calls = message.tool_calls or ()
    return message.model_copy(update={"tool_calls": (*calls[:number], call, *calls[number + 1 :])})


def _whole(text: str, span: Span) -> Span:
    """The JSON object that a changed stretch is in; the stretch itself where its arguments are not written as
    JSON."""
    start = span[0]
    while start > 0 and text[start - 1] in '"{ \n\t':
        start -= 1
        if text[start] == "{":
            break
    if text[start : start + 1] == "{":
        try:
            return start, json.JSONDecoder().raw_decode(text, start)[1]
        except ValueError:
            pass
    return span


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
