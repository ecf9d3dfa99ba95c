"""Recipes and texts as they are written on a command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from app.commands.finite import require_finite, text_or_number
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.text import CORPUS_NAMES, Document
from app.models.document_faults import HINT, document_faults

Json = dict[str, Any]

_UNSAID: Final[dict[str, Json]] = {  # what `parse_text` leaves at these values
    "self": {"temperature": 1.0},
    "hub": {"config": None, "split": "test", "revision": None, "documents": 100, "domain": "text"},
}
_NO_COMMA: Final = re.compile(r"([:;]) *(\w+)=")  # between two values of a step
_TEXT_SUFFIXES: Final = frozenset({".txt", ".md", ".jsonl"})


def parse_recipe(steps: list[str]) -> list[Json]:
    """Each `--recipe` is one step, `TYPE:key=value,key=value` (lists with +: `layers=0+1`; `calibration=` takes
    what `--text` does), or JSON, or `@file.json`.

    Values are JSON where they parse as it, else text. Raises `HemostatError(INVALID_REQUEST)` with the faulty part.
    """
    recipe: list[Json] = []
    for step in steps:
        if step.startswith("@"):
            found = _steps_of_json(
                _read(Path(step[1:]), "give a file that holds a step, or a list of steps, as JSON"), step
            )
        elif step.lstrip().startswith(("{", "[")):
            found = _steps_of_json(step, step)
        else:
            found = [_shorthand(step)]
        require_finite(found, f"recipe step {step!r}")
        recipe += found
    return recipe


def _shorthand(step: str) -> Json:
    kind, _, rest = step.partition(":")
    wrong = _NO_COMMA.search(rest)
    if wrong:
        mended = _NO_COMMA.sub(r",\2=", rest)
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"recipe step {step!r}: {wrong[1]!r} before {wrong[2]}= must be a comma",
            hint=f"separate the values of a step by commas: --recipe {kind}:{mended}",
        )
    parsed: Json = {"type": kind}
    for pair in filter(None, rest.split(",")):
        key, equals, value = pair.partition("=")
        name = key.strip()
        if not equals:
            raise HemostatError(
                ErrorCode.INVALID_REQUEST,
                f"recipe step {step!r}: {pair!r} is not key=value",
                hint="for example: --recipe quantize.rtn:bits=4,group_size=64; a list is written layers=0+1+29",
            )
        if name in parsed:
            raise HemostatError(
                ErrorCode.INVALID_REQUEST, f"recipe step {step!r} has {name} twice", hint="leave one of them out"
            )
        if name == "calibration" and not value.lstrip().startswith("{"):
            parsed[name] = parse_text(value.strip())
            continue
        listed = name in {"layers", "modules"} or "+" in value
        parsed[name] = [_value(part) for part in value.split("+")] if listed else _value(value)
    return parsed


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text_or_number(text)


def step_word(step: Json) -> str:
    """A step as `parse_recipe` takes it: in short if that says the same, else as JSON."""
    rest = [(name, value) for name, value in step.items() if name != "type"]
    if not any(isinstance(value, dict) for _, value in rest):
        short = f"{step['type']}:{','.join(f'{name}={_plain(value)}' for name, value in rest)}".removesuffix(":")
        if short.isascii() and short.isprintable() and _shorthand_or_none(short) == step:
            return short
    return json.dumps(step)


def _shorthand_or_none(step: str) -> Json | None:
    try:
        return _shorthand(step)
    except HemostatError:
        return None


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "+".join(map(_plain, value))
    return value if isinstance(value, str) else json.dumps(value)


def _steps_of_json(text: str, origin: str) -> list[Json]:
    try:
        parsed = json.loads(text)
    except json.JSONDecodeError as error:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST, f"recipe {origin!r} is not JSON: {error}", hint="check quotes and commas"
        ) from error
    steps = parsed if isinstance(parsed, list) else [parsed]
    if not all(isinstance(step, dict) for step in steps):
        raise HemostatError(ErrorCode.INVALID_REQUEST, f"recipe {origin!r} is not an object or a list of objects")
    return steps


def parse_text(text: str | None) -> Json:
    """`shipped`, `shipped:60`, `calibration`, `classes`, `self:8192`, `hub:NAME[:COLUMN]`, or a .txt, .jsonl or folder
    here, which is sent."""
    if text is None:
        return {"source": "shipped"}
    source, _, argument = text.partition(":")
    if source == "shipped":
        return {"source": "shipped"} | ({"documents": _number(argument, text)} if argument else {})
    if source in {"calibration", "classes"}:
        documents = {"documents": _number(argument, text)} if argument else {}
        return {"source": "shipped", "corpus": source} | documents
    if source == "self":
        return {"source": "self"} | ({"tokens": _number(argument, text)} if argument else {})
    if source == "hub":
        dataset, _, column = argument.partition(":")
        return {"source": "hub", "dataset": dataset} | ({"column": column} if column else {})
    return {"source": "inline", "documents": _local_documents(Path(text))}


def text_word(text: Json) -> str | None:
    """A text source as `parse_text` takes it; None if that cannot say all of it."""
    source = text.get("source")
    if source == "inline":
        return "DOCUMENTS.jsonl"
    if source == "shipped":
        corpus = CORPUS_NAMES.get(text.get("corpus", "evaluation"))
        return f"{corpus}:{text['documents']}" if corpus and text.get("documents") else corpus
    if source not in _UNSAID or any(text.get(key, default) != default for key, default in _UNSAID[source].items()):
        return None
    if source == "self":
        return f"self:{text.get('tokens', 8192)}"
    column = text.get("column", "text")
    return f"hub:{text.get('dataset', '')}" + (f":{column}" if column != "text" else "")


def _number(argument: str, text: str) -> int:
    try:
        return int(argument)
    except ValueError:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"--text {text}: {argument!r} is not a whole number",
            hint="for example: self:8192, shipped:20",
        ) from None


def _local_documents(path: Path) -> list[Json]:
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if _is_text(file.relative_to(path)) and not file.is_dir())
        if not files:
            raise HemostatError(
                ErrorCode.TEXT_NOT_FOUND, f"{path} holds no .txt, .md or .jsonl file", hint="give a folder with text"
            )
        for file in files:
            if not file.is_file():  # a pipe would be waited for without an end
                raise HemostatError(
                    ErrorCode.TEXT_NOT_FOUND,
                    f"{file} is not a regular file",
                    hint="remove it from the folder, or give it another extension",
                )
        return [document for file in files for document in _file_documents(file, file.relative_to(path).as_posix())]
    return _file_documents(path, path.name)


def _is_text(name: Path) -> bool:
    """By its suffix. What is hidden, or is in a hidden folder, stays here, as a service passes it over, too."""
    return name.suffix.lower() in _TEXT_SUFFIXES and not any(part.startswith(".") for part in name.parts)


def _file_documents(file: Path, name: str) -> list[Json]:
    content = _read(file)
    if file.suffix.lower() != ".jsonl":
        return [{"id": name, "text": content}]
    documents = []
    # Not `splitlines`: JSON may hold U+2028, U+0085 and their like as they are.
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            documents.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise HemostatError(
                ErrorCode.INVALID_REQUEST,
                f"{file}, line {number} is not JSON: {error}",
                hint='each line is one document: {"id": "…", "domain": "…", "text": "…"}',
            ) from error
        _check_document(line, f"{file}, line {number}")
    return documents


def _check_document(line: str, where: str) -> None:
    """Raises INVALID_REQUEST for what is no document, by file and line: a service would name it by its number among all
    that are sent. What pydantic does not take for JSON (half a character) is left to the service, which says where."""
    try:
        Document.model_validate_json(line)
    except ValidationError as error:
        if any(problem["type"] == "json_invalid" for problem in error.errors(include_input=False)):
            return
        raise HemostatError(
            ErrorCode.INVALID_REQUEST, f"{where} is not a document: {document_faults(error)}", hint=HINT
        ) from None


_SOURCES: Final = "give a file or folder, or one of: shipped, calibration, classes, self:8192, hub:NAME"


def _read(file: Path, hint: str = _SOURCES) -> str:
    """As a service reads it: ends of lines as they are in the file, and a byte order mark is no part of the text."""
    try:
        return file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise HemostatError(
            ErrorCode.TEXT_NOT_FOUND,
            f"there is no file {file}",
            hint=hint,
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise HemostatError(
            ErrorCode.DOCUMENT_NOT_TEXT, f"{file} could not be read as UTF-8 text: {error}", hint="convert it to UTF-8"
        ) from error
