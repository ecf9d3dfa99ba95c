"""A document on its way from a source to windows, and the rules that every document obeys.

A source yields documents in one of three forms: plain text, chat messages, or exact token ids (a self corpus). Exact
tokens must not pass through text again, since decoding and encoding need not give the same.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.text import MAX_DOCUMENTS, Document, Message, Tool
from app.settings import Settings


@dataclass(frozen=True)
class TextDocument:
    """A document: exactly one of `text`, `messages` and `tokens`.

    `tokens` (int32, no BOS) comes with `scored_from`, the index of the first token that is scored. `tools` and `scored`
    (which tokens count) belong to `messages`. `pointer` is the JSON pointer of the document in the request, "" where it
    does not stand there.
    """

    id: str
    domain: str
    text: str | None = None
    messages: tuple[Message, ...] | None = None
    tokens: npt.NDArray[np.int32] | None = None
    scored_from: int = 0
    pointer: str = ""
    tools: tuple[Tool, ...] | None = None
    scored: Literal["assistant", "all"] = "assistant"

    @classmethod
    def of(cls, document: Document, *, pointer: str = "") -> "TextDocument":
        """The contract's document."""
        return cls(
            document.id,
            document.domain,
            text=document.text,
            messages=document.messages,
            pointer=pointer,
            tools=document.tools,
            scored=document.scored,
        )

    def strings(self) -> tuple[str, ...]:
        """Every piece of text that somebody wrote in it, tools' definitions left out; none for exact tokens."""
        if self.text is not None:
            return (self.text,)
        calls = [call for message in self.messages or () for call in message.tool_calls or ()]
        return (
            *(message.content for message in self.messages or ()),
            *(json.dumps(call.model_dump(), ensure_ascii=False) for call in calls),
        )


def check_text(text: str, *, name: str, pointer: str = "") -> int:
    """Number of UTF-8 bytes of `text`, called `name` in errors.

    Raises DOCUMENT_NOT_TEXT for a NUL (binary data read as text) and for a lone surrogate (half of a UTF-16 pair). No
    tokenizer encodes that, and no JSON answer could hold it.
    """
    if "\0" in text:
        raise HemostatError(
            ErrorCode.DOCUMENT_NOT_TEXT,
            f"{name} holds a NUL byte at character {text.index(chr(0))}.",
            hint="Remove the NUL bytes, or give a text file.",
            pointer=pointer,
        )
    try:
        return len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise HemostatError(
            ErrorCode.DOCUMENT_NOT_TEXT,
            f"{name} holds a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}.",
            hint="Send whole characters: a surrogate is half of one.",
            pointer=pointer,
        ) from None


class Intake:
    """Takes documents in, one by one, and refuses what is not text, a repeated id, too many, or too much.

    Limits: `MAX_DOCUMENTS` documents, `settings.max_body_bytes` bytes of UTF-8 over all.
    """

    def __init__(self, settings: Settings, *, pointer: str = "/text") -> None:
        self._limit_bytes = settings.max_body_bytes
        self._pointer = pointer
        self._ids: set[str] = set()
        self._documents: list[TextDocument] = []
        self._bytes = 0

    def add(self, document: TextDocument) -> None:
        """Raises DOCUMENT_NOT_TEXT, INVALID_REQUEST (repeated id), TOO_MANY_DOCUMENTS or BODY_TOO_LARGE."""
        if document.id in self._ids:
            raise HemostatError(
                ErrorCode.INVALID_REQUEST,
                f"Two documents have the id {document.id!r}.",
                hint="Give every document its own id.",
                pointer=document.pointer or self._pointer,
            )
        if len(self._documents) == MAX_DOCUMENTS:
            raise HemostatError(
                ErrorCode.TOO_MANY_DOCUMENTS,
                f"The text has more than {MAX_DOCUMENTS} documents.",
                hint="Send a sample of them.",
                pointer=self._pointer,
            )
        check_text(document.id, name=f"The id {document.id!a}", pointer=document.pointer or self._pointer)
        for text in document.strings():
            self._bytes += check_text(text, name=f"Document {document.id!r}", pointer=document.pointer)
        if self._bytes > self._limit_bytes:
            raise too_large(self._limit_bytes, pointer=self._pointer)
        self._ids.add(document.id)
        self._documents.append(document)

    def room_bytes(self) -> int:
        """How many bytes may still come."""
        return self._limit_bytes - self._bytes

    def documents(self) -> list[TextDocument]:
        """All that was taken in, at least one; raises TEXT_NOT_FOUND if there is none."""
        if not self._documents:
            raise HemostatError(
                ErrorCode.TEXT_NOT_FOUND,
                "The text source holds no document.",
                hint="Give at least one document.",
                pointer=self._pointer,
            )
        return self._documents


def too_large(limit_bytes: int, *, pointer: str) -> HemostatError:
    """The error for a text of more bytes than are taken."""
    return HemostatError(
        ErrorCode.BODY_TOO_LARGE,
        f"The text is larger than {limit_bytes} bytes.",
        hint="Send a sample of it, or raise HEMOSTAT_MAX_BODY_BYTES.",
        pointer=pointer,
    )


def of_inline(documents: Iterable[Document], *, settings: Settings) -> list[TextDocument]:
    """Documents of the request itself; errors point at the one to blame."""
    intake = Intake(settings, pointer="/text/documents")
    for index, document in enumerate(documents):
        intake.add(TextDocument.of(document, pointer=f"/text/documents/{index}"))
    return intake.documents()
