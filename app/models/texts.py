"""What of the text sources of a request can be refused before a job is queued.

Reads folders and sizes of files, never what is in them.
"""

import os
from pathlib import Path

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.text import FileText, HubText, InlineText, TextSource
from app.models.paths import below
from app.models.tokenizers import has_chat_template, is_one_token
from app.settings import Settings

TEXT_SUFFIXES = frozenset({".txt", ".jsonl"})


def check_text(text: TextSource, tokenizer: Path, settings: Settings, field: str, *, scored: bool = True) -> None:
    """Returns where the source can be read, as far as can be known without its tokens.

    `scored` says whether its own tokens are: then a conversation needs a word of the assistant's.

    Raises PATH_FORBIDDEN, HUB_FORBIDDEN, TEXT_NOT_FOUND, DOCUMENT_TOO_SHORT, DOCUMENT_NOT_TEXT, CHAT_TEMPLATE_MISSING,
    and INVALID_REQUEST (two documents of one id) with pointers below `field`.
    """
    if isinstance(text, InlineText):
        _check_documents(text, tokenizer, field, scored=scored)
    elif isinstance(text, FileText):
        text_files(text, settings, field)
    elif isinstance(text, HubText):
        check_hub(text, settings, field)


def check_hub(text: HubText, settings: Settings, field: str) -> None:
    """Raises HUB_FORBIDDEN for a data set that the operator has not allowed."""
    allowed = {name.strip() for name in (settings.hub_text or "").split(",")}
    if text.dataset not in allowed:
        raise HemostatError(
            ErrorCode.HUB_FORBIDDEN,
            f"this service takes no text from the hub's data set {text.dataset!r}",
            hint="ask the operator to add it to HEMOSTAT_HUB_TEXT, send the text, or use a file below the text root",
            pointer=f"{field}/dataset",
        )


def _check_documents(text: InlineText, tokenizer: Path, field: str, *, scored: bool) -> None:
    seen: dict[str, int] = {}
    for index, document in enumerate(text.documents):
        pointer = f"{field}/documents/{index}"
        first = seen.setdefault(document.id, index)
        if first != index:
            raise HemostatError(
                ErrorCode.INVALID_REQUEST,
                f"documents {first + 1} and {index + 1} have the same id {document.id!r}",
                hint="give every document its own id",
                pointer=f"{pointer}/id",
            )
        if document.text is not None:
            if _utf8_bytes(document.text, f"{pointer}/text") < 2:
                raise _too_short(document.id, "has fewer than two bytes of text", f"{pointer}/text")
            if is_one_token(tokenizer, document.text):
                raise _too_short(document.id, "is a single token", f"{pointer}/text")
            continue
        said = 0
        for turn, message in enumerate(document.messages or ()):
            length = _utf8_bytes(message.content, f"{pointer}/messages/{turn}/content")
            said += length + len(message.tool_calls or ()) if message.role == "assistant" else 0
        if not has_chat_template(tokenizer):
            raise HemostatError(
                ErrorCode.CHAT_TEMPLATE_MISSING,
                f"document {document.id!r} is a conversation, and the tokenizer has no chat template",
                hint="send the conversation as text, or use a model whose tokenizer has a chat template",
                pointer=f"{pointer}/messages",
            )
        if scored and said == 0 and document.scored == "assistant":
            raise _too_short(document.id, "has no word of the assistant's, and nothing else is scored", pointer)


def _too_short(document: str, what: str, pointer: str) -> HemostatError:
    return HemostatError(
        ErrorCode.DOCUMENT_TOO_SHORT,
        f"document {document!r} {what}",
        hint="leave it out, or join it with another: a single token has no next token to predict",
        pointer=pointer,
    )


def _utf8_bytes(text: str, pointer: str) -> int:
    """Length in UTF-8; raises DOCUMENT_NOT_TEXT for NUL bytes and lone surrogates, naming the position alone."""
    if "\0" in text:
        raise HemostatError(
            ErrorCode.DOCUMENT_NOT_TEXT,
            f"there is a NUL byte at character {text.index(chr(0))}",
            hint="remove it: text has no NUL bytes",
            pointer=pointer,
        )
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise HemostatError(
            ErrorCode.DOCUMENT_NOT_TEXT,
            f"there is a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}",
            hint="send whole characters: a surrogate is half of one",
            pointer=pointer,
        ) from None


def text_files(text: FileText, settings: Settings, field: str = "/text") -> list[Path]:
    """The files that a file source means; links are followed only where they stay below the root.

    Raises PATH_FORBIDDEN, TEXT_NOT_FOUND and DOCUMENT_NOT_TEXT.
    """
    if settings.text_root is None:
        raise HemostatError(
            ErrorCode.PATH_FORBIDDEN,
            "this service reads no text files: HEMOSTAT_TEXT_ROOT is not set",
            hint="ask the operator to set HEMOSTAT_TEXT_ROOT, or send the documents inline",
            pointer=f"{field}/path",
        )
    path = below(settings.text_root, text.path, pointer=f"{field}/path")
    if path.is_file() and path.suffix.lower() not in TEXT_SUFFIXES:
        raise HemostatError(
            ErrorCode.DOCUMENT_NOT_TEXT,
            f"{text.path!r} is neither a .txt nor a .jsonl file",
            hint="name a .txt file (one document), a .jsonl file (one document per line), or a folder of them",
            pointer=f"{field}/path",
        )
    found = [path] if path.is_file() else []
    if path.is_dir():
        root = settings.text_root.resolve()
        for folder, folders, names in os.walk(path):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                if not name.startswith(".") and Path(name).suffix.lower() in TEXT_SUFFIXES:
                    relative = (Path(folder) / name).relative_to(root).as_posix()
                    found.append(below(root, relative, pointer=f"{field}/path"))
    found = [file for file in found if file.is_file()]
    if not found:
        raise HemostatError(
            ErrorCode.TEXT_NOT_FOUND,
            f"there is no .txt or .jsonl file at {text.path!r}",
            hint="the path is relative to the text root; it may be a file or a folder",
            pointer=f"{field}/path",
        )
    return found
