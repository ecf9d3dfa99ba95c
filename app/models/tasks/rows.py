"""Task files as rows: found below the text root, and read line by line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.task import TaskFormat
from app.models.paths import below
from app.models.tasks.formats import LETTERS, Complain
from app.settings import Settings

SUFFIXES: Final = (".jsonl", ".csv")
_MAX_BYTES: Final = 512 * 1024 * 1024
_MMLU_COLUMNS: Final = 6
# Raises, with where, what is wrong, and what to do.
ComplainOf = Callable[[str, str, str], NoReturn]


def complainer(name: str, pointer: str) -> ComplainOf:
    """Raises TASK_INVALID for the file called `name`."""

    def complain(where: str, what: str, hint: str) -> NoReturn:
        raise HemostatError(ErrorCode.TASK_INVALID, f"{name}{where}: {what}", hint=hint, pointer=pointer)

    return complain


def text_of(file: Path, complain: ComplainOf) -> str:
    """The whole file."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        complain("", "it is not UTF-8 text", "convert it to UTF-8")


def locate(path: str, settings: Settings, *, pointer: str) -> Path:
    """A task file below the text root."""
    if settings.text_root is None:
        raise HemostatError(
            ErrorCode.PATH_FORBIDDEN,
            "this service reads no task files: HEMOSTAT_TEXT_ROOT is not set",
            hint="ask the operator to set HEMOSTAT_TEXT_ROOT; the shipped task needs no file",
            pointer=pointer,
        )
    file = below(settings.text_root, path, pointer=pointer)
    if not file.is_file():
        raise HemostatError(
            ErrorCode.TEXT_NOT_FOUND,
            f"there is no file {path!r} below the text root",
            hint="the path is relative to the text root",
            pointer=pointer,
        )
    if file.suffix.lower() not in SUFFIXES or file.stat().st_size > _MAX_BYTES:
        raise HemostatError(
            ErrorCode.TASK_INVALID,
            f"{path!r} is neither a .jsonl nor a .csv file of at most {_MAX_BYTES // 1024**2} MiB",
            hint="save the items one a line: JSON objects, or CSV with a header",
            pointer=pointer,
        )
    return file


def rows(text: str, suffix: str, form: TaskFormat | None, complain: ComplainOf) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, row) of JSON objects one a line, or of CSV with a header; lists stand as JSON in a cell.

    `complain` gets where, what, and what to do.
    """
    if suffix == ".csv":
        yield from _csv_rows(text, form, complain)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            complain(f", line {number}", f"it is not JSON ({error.msg})", "one JSON object a line")
        if not isinstance(row, dict):
            complain(f", line {number}", "it is no JSON object", "one JSON object a line")
        yield number, row


def _csv_rows(text: str, form: TaskFormat | None, complain: ComplainOf) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            if not any(cells):
                continue
            if header is None:
                header = _header(cells, form)
                if header != cells:  # MMLU's own files begin with an item
                    yield reader.line_num, _row(header, cells, reader.line_num, complain)
                continue
            yield reader.line_num, _row(header, cells, reader.line_num, complain)
    except csv.Error as error:
        complain(f", line {reader.line_num}", f"it is not CSV ({error})", "quote cells that hold quotes or commas")


def _header(cells: list[str], form: TaskFormat | None) -> list[str]:
    if form == "mmlu" and len(cells) == _MMLU_COLUMNS and "question" not in cells:
        return ["question", "A", "B", "C", "D", "answer"]
    return cells


def _lettered(row: dict[str, Any], complain: Complain) -> list[str]:
    """The cells A, B, … up to the last one that is filled. A gap would give those behind it other letters than the
    answer counts by."""
    filled = [letter for letter in LETTERS if row.get(letter)]
    letters = LETTERS[: LETTERS.index(filled[-1]) + 1] if filled else ""
    gap = next((letter for letter in letters if letter not in filled), None)
    if gap is not None:
        what = f"cell {gap} is empty" if gap in row else f"there is no cell {gap}"
        complain(f"{what}, and cell {filled[-1]} is not", "leave cells empty at the end only, or take the item out")
    return [row[letter] for letter in letters]


def _row(header: list[str], cells: list[str], line: int, complain: ComplainOf) -> dict[str, Any]:
    if len(cells) != len(header):
        complain(f", line {line}", f"it has {len(cells)} cells, the header {len(header)}", "quote cells with commas")
    row: dict[str, Any] = dict(zip(header, cells, strict=True))
    if "choices" not in row and "A" in row and "B" in row:
        row["choices"] = _lettered(row, partial(complain, f", line {line}"))
    for field in ("choices", "endings"):
        if isinstance(row.get(field), str):
            try:
                row[field] = json.loads(row[field])
            except json.JSONDecodeError:
                complain(f", line {line}", f"{field} is not JSON", 'write lists as JSON: ["one", "two"]')
    return row
