"""Text sources: what the two models are compared on."""

from typing import Annotated, Any, Final, Literal

from pydantic import Field, model_validator

from app.contracts.base import Contract, Json, broken
from app.contracts.bounded import parse

Domain = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")]

MAX_DOCUMENTS = 5000
MAX_ARGUMENTS: Final = 10_000  # brackets, quotes and colons of the arguments of one call


ToolName = Annotated[str, Field(min_length=1, max_length=200)]


class Tool(Contract):
    """A tool that the model may call. The form of OpenAI's API, `{"type": "function", "function": {…}}`, is taken
    too."""

    name: ToolName
    description: str = ""
    parameters: dict[str, Json] = Field(default_factory=dict, description="JSON Schema of the arguments")

    @model_validator(mode="before")
    @classmethod
    def _unwrapped(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("function"), dict):
            return given["function"]
        return given


class ToolCall(Contract):
    """A call of a tool. The form of OpenAI's API is taken too; its id is dropped, arguments in a string are parsed."""

    name: ToolName
    arguments: dict[str, Json]

    @model_validator(mode="before")
    @classmethod
    def _unwrapped(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("function"), dict):
            given = given["function"]
        if isinstance(given, dict) and isinstance(given.get("arguments"), str):
            try:
                return given | {"arguments": parse(given["arguments"].encode(), MAX_ARGUMENTS)[0]}
            except ValueError as error:
                raise ValueError(f"arguments is a string that is not JSON: {error}") from None
        return given


# What OpenAI's API writes into each message of an assistant, null or empty if there is none of it.
_UNUSED: Final = frozenset({"refusal", "annotations", "audio", "function_call", "tool_calls"})


class Message(Contract):
    """One turn of a chat-formatted document. An assistant's may call tools, with content or without.

    The form of OpenAI's API is taken too: null for the content of a message that calls tools, nulls and empty lists for
    what is not there. Ids of calls are dropped.
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    tool_calls: Annotated[tuple[ToolCall, ...], Field(min_length=1, max_length=64)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _unwrapped(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        given = {key: value for key, value in given.items() if value or key not in _UNUSED}
        if given.get("role") == "tool":
            given.pop("tool_call_id", None)
        calls = given.get("tool_calls")
        if calls and given.get("content", "") is None:
            del given["content"]
        if isinstance(calls, list):  # read from JSON: from here on it is Python, where a strict tuple is no list
            given["tool_calls"] = tuple(calls)
        return given

    @model_validator(mode="after")
    def _says_something(self) -> "Message":
        if self.tool_calls is not None and self.role != "assistant":
            raise ValueError("only the assistant calls tools")
        if "content" not in self.model_fields_set and self.tool_calls is None:
            raise ValueError("give content, or tool_calls where the assistant calls tools")
        return self


class Document(Contract):
    """A document: plain `text`, or chat `messages` (chat template applied, the assistant's tokens scored)."""

    id: Annotated[str, Field(min_length=1, max_length=200)]
    domain: Domain = "text"
    text: str | None = None
    messages: Annotated[tuple[Message, ...], Field(min_length=1, max_length=1000)] | None = None
    tools: Annotated[tuple[Tool, ...], Field(min_length=1, max_length=128)] | None = Field(
        default=None, description="tools that the conversation's model may call"
    )
    scored: Literal["assistant", "all"] = Field(
        default="assistant",
        description="which tokens of a conversation count: what the assistant wrote, or all, the template's too",
    )

    @model_validator(mode="after")
    def _one_form(self) -> "Document":
        if (self.text is None) == (self.messages is None):
            hint = "text is plain text; messages are a conversation, of which the assistant's turns are scored."
            raise broken("give either text or messages", hint=hint)
        if self.messages is None and (self.tools is not None or self.scored != "assistant"):
            raise ValueError("tools and scored belong to messages")
        return self


class InlineText(Contract):
    """Documents in the request itself. Ids are unique."""

    source: Literal["inline"]
    documents: Annotated[tuple[Document, ...], Field(min_length=1, max_length=MAX_DOCUMENTS)]


class FileText(Contract):
    """A file or folder below the operator's text root: .txt (one document a file) or .jsonl (one `Document` a line)."""

    source: Literal["file"]
    path: Annotated[str, Field(min_length=1, max_length=1000)] = Field(description="Relative to the text root.")
    domain: Domain = "text"


class SelfText(Contract):
    """Text sampled from the reference itself, over at least six domains, seeded and cached."""

    source: Literal["self"]
    tokens: Annotated[int, Field(ge=256, le=1_000_000)] = 8192
    temperature: Annotated[float, Field(gt=0, le=2)] = 1.0


class HubText(Contract):
    """A data set of the hub, by id and revision."""

    source: Literal["hub"]
    dataset: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")]
    config: Annotated[str, Field(max_length=200)] | None = None
    split: Annotated[str, Field(max_length=100)] = "test"
    column: Annotated[str, Field(max_length=100)] = "text"
    revision: Annotated[str, Field(max_length=100)] | None = None
    documents: Annotated[int, Field(ge=1, le=MAX_DOCUMENTS)] = 100
    domain: Domain = "text"


# What the command line calls each corpus that ships.
CORPUS_NAMES: Final = {"evaluation": "shipped", "calibration": "calibration", "classes": "classes"}


class ShippedText(Contract):
    """A corpus that ships with Hemostat. `documents` takes the first so many, each domain in turn.

    The corpora share no document: `evaluation` is what is scored, `calibration` what is fitted. `classes` holds what
    the others have little of: tool calls, JSON, code in conversation, other languages and scripts.
    """

    source: Literal["shipped"]
    corpus: Literal["evaluation", "calibration", "classes"] = "evaluation"
    documents: Annotated[int, Field(ge=1, le=MAX_DOCUMENTS)] | None = None


TextSource = Annotated[InlineText | FileText | SelfText | HubText | ShippedText, Field(discriminator="source")]
