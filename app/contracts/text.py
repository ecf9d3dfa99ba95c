"""Text sources: what the two models are compared on."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.contracts.base import Contract

Domain = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")]

MAX_DOCUMENTS = 5000


class Message(Contract):
    """One turn of a chat-formatted document."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


class Document(Contract):
    """A document: plain `text`, or chat `messages` (chat template applied, the assistant's tokens scored)."""

    id: Annotated[str, Field(min_length=1, max_length=200)]
    domain: Domain = "text"
    text: str | None = None
    messages: Annotated[tuple[Message, ...], Field(min_length=1, max_length=1000)] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> "Document":
        if (self.text is None) == (self.messages is None):
            raise ValueError("give either text or messages")
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


class ShippedText(Contract):
    """A corpus that ships with Hemostat. `documents` takes the first so many, each domain in turn.

    The two corpora share no document: `evaluation` is what is scored, `calibration` what is fitted.
    """

    source: Literal["shipped"]
    corpus: Literal["evaluation", "calibration"] = "evaluation"
    documents: Annotated[int, Field(ge=1, le=MAX_DOCUMENTS)] | None = None


TextSource = Annotated[InlineText | FileText | SelfText | HubText | ShippedText, Field(discriminator="source")]
