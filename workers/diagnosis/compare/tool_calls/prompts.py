"""From conversations with tools to prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator, SchemaError

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.text import Message, Tool
from workers.text.chat import prompt_tokens
from workers.text.documents import TextDocument

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

POINTER = "/generate_tool_calls"


@dataclass(frozen=True)
class Prompt:
    """A conversation up to where a tool is to be called, as tokens; the tools, and the one that was called there."""

    document: str
    tokens: tuple[int, ...]
    tools: tuple[Tool, ...]
    expected: str | None


def with_tools(documents: Sequence[TextDocument], most: int) -> list[TextDocument]:
    """The conversations that tool calls are asked for in: the first `most` that have tools."""
    return [document for document in documents if document.tools and document.messages][:most]


def prompts_of(
    documents: Sequence[TextDocument], tokenizer: PreTrainedTokenizerBase, most: int, bos: int | None
) -> list[Prompt]:
    """One prompt a conversation with tools, the first `most` of them.

    Raises INVALID_REQUEST if no document has tools, or a tool's parameters are no JSON Schema (a reference to
    another document is none: nothing is fetched); and what rendering raises.
    """
    found: list[Prompt] = []
    for document in with_tools(documents, most):
        for tool in document.tools or ():
            _check_schema(tool, document.id)
        messages, expected = _before_call(document.messages or ())
        tokens = prompt_tokens(tokenizer, messages, tools=document.tools or ()).tolist()
        if bos is not None and tokens[:1] != [bos]:
            tokens = [bos, *tokens]
        found.append(Prompt(document.id, tuple(tokens), document.tools or (), expected))
    if not found:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            "No document of the text has tools, so the models have nothing to call.",
            hint="Give conversations with tools, or leave text out to use the shipped corpus of classes.",
            pointer=f"{POINTER}/text",
        )
    return found


def _before_call(messages: Sequence[Message]) -> tuple[tuple[Message, ...], str | None]:
    """The conversation before the assistant first calls a tool, and which; without a call, before its first answer."""
    for index, message in enumerate(messages):
        if message.tool_calls:
            return tuple(messages[:index]), message.tool_calls[0].name
    first = next((index for index, message in enumerate(messages) if message.role == "assistant"), len(messages))
    return tuple(messages[:first]), None


def _check_schema(tool: Tool, document: str) -> None:
    try:
        Draft202012Validator.check_schema(tool.parameters)
        wrong = any(not reference.startswith("#") for reference in _references(tool.parameters))
    except (SchemaError, RecursionError):
        wrong = True
    if wrong:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"Document {document!r}: the parameters of the tool {tool.name!r} are not a self-contained JSON Schema.",
            hint="Give an object schema (Draft 2020-12) without references to other documents.",
            pointer=f"{POINTER}/text",
        )


def _references(schema: Any) -> Iterator[str]:
    """Where a schema refers to."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in {"$ref", "$dynamicRef"} and isinstance(value, str):
                yield value
            yield from _references(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _references(item)
