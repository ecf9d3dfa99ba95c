"""Text in files below the operator's text root: .txt is one document, .jsonl holds one `Document` a line.

A folder means every such file below it, in the order of their relative paths. Hidden files and folders are passed
over. Nothing outside the root is ever opened: each path goes through `app.models.paths.below`, links included.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.text import Document, FileText
from app.models.document_faults import HINT, document_faults
from app.models.paths import below
from app.settings import Settings
from workers.text.callbacks import CheckCancelled, Progress, never_cancelled, no_progress
from workers.text.documents import Intake, TextDocument, too_large

POINTER = "/text/path"
SUFFIXES = (".txt", ".jsonl")


def load_files(
    source: FileText,
    *,
    settings: Settings,
    progress: Progress = no_progress,
    check_cancelled: CheckCancelled = never_cancelled,
) -> list[TextDocument]:
    """Every document of the file or folder.

    Raises PATH_FORBIDDEN, TEXT_NOT_FOUND, DOCUMENT_NOT_TEXT (not UTF-8, NUL, surrogates, not JSON, another suffix),
    INVALID_REQUEST (a line that is no `Document`, a repeated id), TOO_MANY_DOCUMENTS, BODY_TOO_LARGE. Errors name the
    file and the line, never the text.
    """
    if settings.text_root is None:
        raise HemostatError(
            ErrorCode.PATH_FORBIDDEN,
            "This service reads no text files: HEMOSTAT_TEXT_ROOT is not set.",
            hint="Ask the operator to set HEMOSTAT_TEXT_ROOT to the folder of texts, or send the documents inline.",
            pointer=POINTER,
        )
    root = settings.text_root.resolve()
    path = below(root, source.path, pointer=POINTER)
    files = _files(root, path, source.path)
    intake = Intake(settings, pointer=POINTER)
    for number, file in enumerate(files):
        check_cancelled()
        progress("text", number, len(files))
        name = file.relative_to(root).as_posix()
        # resolved again: what is in a folder may be a link
        target = below(root, name, pointer=POINTER)
        if file.suffix.lower() == ".txt":
            data = _read(target, name, intake.room_bytes(), settings)
            intake.add(TextDocument(name, source.domain, text=_decode(data, name)))
        else:
            for document in _lines(target, name, source.domain, intake.room_bytes(), settings):
                check_cancelled()
                intake.add(document)
    progress("text", len(files), len(files))
    return intake.documents()


def _files(root: Path, path: Path, asked: str) -> list[Path]:
    """The files that `path` means, with their names below `root` as they were asked for (links unresolved)."""
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise HemostatError(
                ErrorCode.DOCUMENT_NOT_TEXT,
                f"{asked!r} is neither a .txt nor a .jsonl file.",
                hint="Name a .txt file (one document), a .jsonl file (one document per line), or a folder of them.",
                pointer=POINTER,
            )
        return [path]
    if not path.is_dir():
        raise HemostatError(
            ErrorCode.TEXT_NOT_FOUND,
            f"There is no file or folder {asked!r} below the text root.",
            hint="Paths are relative to HEMOSTAT_TEXT_ROOT.",
            pointer=POINTER,
        )
    found = []
    for folder, folders, names in os.walk(path, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(folder) / name for name in names if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        ]
    if not found:
        raise HemostatError(
            ErrorCode.TEXT_NOT_FOUND,
            f"The folder {asked!r} holds no .txt and no .jsonl file.",
            hint="Put texts there as .txt (one document) or .jsonl (one document per line).",
            pointer=POINTER,
        )
    return sorted(found, key=lambda file: file.relative_to(root).as_posix())


def _refuse_pipe(path: Path, name: str) -> None:
    """A pipe, or another thing that is no file, would be waited for without an end."""
    if path.exists() and not path.is_file():
        raise HemostatError(
            ErrorCode.TEXT_NOT_FOUND,
            f"{name} is not a regular file.",
            hint="Remove it from the folder, or give it another extension.",
            pointer=POINTER,
        )


def _read(path: Path, name: str, room: int, settings: Settings) -> bytes:
    _refuse_pipe(path, name)
    try:
        with path.open("rb") as file:
            data = file.read(room + 1)
    except OSError as error:
        raise _unreadable(name, error) from error
    if len(data) > room:
        raise too_large(settings.max_body_bytes, pointer=POINTER)
    return data


def _lines(path: Path, name: str, domain: str, room: int, settings: Settings) -> Iterator[TextDocument]:
    """Documents of a .jsonl file; memory holds one line at a time."""
    _refuse_pipe(path, name)
    try:
        with path.open("rb") as file:
            read = 0
            number = 0
            while line := file.readline(room + 1):
                number += 1
                read += len(line)
                if read > room:
                    raise too_large(settings.max_body_bytes, pointer=POINTER)
                where = f"{name} line {number}"
                text = _decode(line, where)
                if text.strip():
                    yield _document(text, where, domain)
    except OSError as error:
        raise _unreadable(name, error) from error


def _document(line: str, where: str, domain: str) -> TextDocument:
    try:
        document = Document.model_validate_json(line)
    except ValidationError as error:
        if any(problem["type"] == "json_invalid" for problem in error.errors(include_input=False)):
            raise HemostatError(
                ErrorCode.DOCUMENT_NOT_TEXT,
                f"{where} is not JSON.",
                hint='Each line is one JSON object such as {"id": "d1", "domain": "prose", "text": "…"}.',
                pointer=POINTER,
            ) from None
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"{where} is not a document: {document_faults(error)}.",
            hint=HINT,
            pointer=POINTER,
        ) from None
    if "domain" not in document.model_fields_set:
        document = document.model_copy(update={"domain": domain})
    return TextDocument.of(document)


def _decode(data: bytes, where: str) -> str:
    try:
        # A byte order mark is no part of the text.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise HemostatError(
            ErrorCode.DOCUMENT_NOT_TEXT,
            f"{where} is not UTF-8: byte {error.start} cannot be decoded.",
            hint="Convert the file to UTF-8, for example with iconv.",
            pointer=POINTER,
        ) from None


def _unreadable(name: str, error: OSError) -> HemostatError:
    return HemostatError(
        ErrorCode.TEXT_NOT_FOUND,
        f"{name} cannot be read: {error.strerror}.",
        hint="Let the worker's user read the file.",
        pointer=POINTER,
    )
