"""From the bytes of a body to a valid request, or to the exact list of what is wrong with it.

Everything that needs no model is checked here, before anything is written. The messages never repeat a document's text.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from app.contracts.base import Contract
from app.contracts.decoding import DECODERS, NO_SHAPING
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.requests import KINDS, SUBMISSION, SubmitRequest
from app.contracts.text import MAX_DOCUMENTS
from app.jobs.allowed import allowed
from app.jobs.schema_walk import Place, Schema
from app.jobs.value_faults import value_fault
from app.models.knobs import KNOBS, lift_knobs, miscounted
from app.models.nearest import as_near, listed, meant, suggestion
from app.problems import MAX_ERRORS, FieldError, RequestError

MAX_DEPTH: Final = 64
# Fields of a request that hold decoders.
DECODER_LISTS: Final = ("decoders", "shapings")
# How pydantic calls a list that is not there, or has too few or too many items.
_MISCOUNTED: Final = frozenset({"missing", "too_short", "too_long"})
_SCHEMA: Final = Schema(SUBMISSION.json_schema())
_Contract = TypeVar("_Contract", bound=Contract)


def parse_submission(body: bytes) -> SubmitRequest:
    """The request. Raises HemostatError (INVALID_JSON) or RequestError with a JSON pointer for each fault."""
    data = _parse_object(body)
    documents = list(_documents(data))
    for path, given in documents:
        if len(given) > MAX_DOCUMENTS:
            raise _one(
                ErrorCode.TOO_MANY_DOCUMENTS,
                f"The request has {len(given)} documents; at most {MAX_DOCUMENTS} are taken.",
                _pointer(path),
            )
    lifted = lift_knobs(_written_out(data))
    if lifted is not data:
        data, body = lifted, json.dumps(lifted).encode()
    try:
        request = SUBMISSION.validate_json(body, strict=True)
    except ValidationError as error:
        raise _no_kind(data) or _faults(error, data, _SCHEMA) from None
    for path, given in documents:
        _check_documents(given, _pointer(path))
    return request


def _written_out(data: dict[str, Any]) -> dict[str, Any]:
    """`true` for the defaults, `false` for null: in the body, since what a validator of pydantic's turns is judged as
    Python and no longer as JSON."""
    given = data.get("generate_tool_calls")
    return data | {"generate_tool_calls": {} if given else None} if isinstance(given, bool) else data


def parse_body(body: bytes, contract: type[_Contract], schema: Schema) -> _Contract:
    """Any other body, of the contract whose JSON schema is given; refused as a submission is."""
    data = _parse_object(body)
    try:
        return contract.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise _faults(error, data, schema) from None


def _parse_object(body: bytes) -> dict[str, Any]:
    data = _parse_json(body)
    _check_leaves(data)
    if not isinstance(data, dict):
        raise HemostatError(ErrorCode.INVALID_REQUEST, "The body is not a JSON object.")
    return data


# --- JSON


@dataclass(frozen=True)
class _Constant:
    """NaN or an infinity, which Python reads and JSON has not; it is refused once its place is known."""

    name: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"an object names {_shown(twice)} twice")
    return made


def _parse_json(body: bytes) -> Any:
    """The value. Python's parser and not pydantic's, because it keeps lone surrogates, so that they can be located."""
    try:
        data = json.loads(body.decode("utf-8"), parse_constant=_Constant, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise HemostatError(ErrorCode.INVALID_JSON, f"The body is not UTF-8: byte {error.start}.") from None
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise HemostatError(ErrorCode.INVALID_JSON, f"The body is not JSON: {error.msg}, {where}.") from None
    except ValueError as error:
        text = "a number has too many digits" if "digits" in str(error) else str(error)
        raise HemostatError(ErrorCode.INVALID_JSON, f"The body is not JSON: {text}.") from None
    return data


def _too_deep() -> HemostatError:
    return HemostatError(ErrorCode.INVALID_JSON, f"The body is nested deeper than {MAX_DEPTH} levels.")


def _leaves(data: Any) -> Iterator[tuple[tuple[str | int, ...], str | _Constant]]:
    """Every string of the value with its path, and what is no number in JSON; names of objects with the path of their
    value."""
    pending: list[tuple[tuple[str | int, ...], Any]] = [((), data)]
    while pending:
        path, value = pending.pop()
        if len(path) >= MAX_DEPTH and isinstance(value, dict | list):
            raise _too_deep()
        if isinstance(value, str | _Constant):
            yield path, value
        elif isinstance(value, dict):
            for name, inner in value.items():
                yield (*path, name), name
                pending.append(((*path, name), inner))
        elif isinstance(value, list):
            pending.extend(((*path, index), inner) for index, inner in enumerate(value))


def _fault(text: str) -> str | None:
    if "\0" in text:
        return f"a NUL character at index {text.index(chr(0))}"
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            return f"a lone surrogate at index {error.start}"
    return None


def _check_leaves(data: Any) -> None:
    errors, constants = [], []
    for path, leaf in _leaves(data):
        if isinstance(leaf, _Constant):
            detail = f"The body is not JSON: {leaf.name} is not a JSON number."
            constants.append(FieldError(ErrorCode.INVALID_JSON, detail, "Give a finite number.", _pointer(path)))
        fault = _fault(leaf) if isinstance(leaf, str) else None
        if fault is not None:
            in_document = _in_document(path)
            code = ErrorCode.DOCUMENT_NOT_TEXT if in_document else ErrorCode.INVALID_REQUEST
            hint = "" if in_document else "Remove NUL characters and lone surrogates."
            errors.append(FieldError(code, f"The text holds {fault}.", hint, _pointer(path)))
        if len(errors) > MAX_ERRORS or len(constants) > MAX_ERRORS:  # no more are told
            break
    if constants or errors:  # what is no JSON has no other faults
        raise RequestError(sorted(constants or errors, key=lambda error: error.pointer))


# --- documents


def _in_document(path: tuple[str | int, ...]) -> bool:
    """Whether a place lies in an inline document, of which nothing is repeated."""
    return "documents" in path[1:]


def _documents(data: dict[str, Any]) -> Iterator[tuple[tuple[str | int, ...], list[Any]]]:
    """The documents of every inline text, wherever in the request it stands, with their path."""
    pending: list[tuple[tuple[str | int, ...], Any]] = [((), data)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict):
            for name, inner in value.items():
                if path and name == "documents" and isinstance(inner, list):
                    yield (*path, name), inner
                else:
                    pending.append(((*path, name), inner))
        elif isinstance(value, list):
            pending.extend(((*path, index), inner) for index, inner in enumerate(value))


def _check_documents(documents: list[dict[str, Any]], pointer: str) -> None:
    errors = []
    seen: dict[str, int] = {}
    for index, document in enumerate(documents):
        first = seen.setdefault(document["id"], index)
        if first != index:
            errors.append(
                FieldError(
                    ErrorCode.INVALID_REQUEST,
                    f"Documents {first + 1} and {index + 1} have the same id, {_shown(document['id'])}.",
                    "Give each document an id of its own.",
                    f"{pointer}/{index}/id",
                )
            )
        if document.get("text") == "":
            errors.append(
                FieldError(
                    ErrorCode.DOCUMENT_TOO_SHORT,
                    f"Document {index + 1}, {_shown(document['id'])}, is empty.",
                    "",
                    f"{pointer}/{index}/text",
                )
            )
    if errors:
        raise RequestError(errors)


# --- what pydantic found


def _pointer(path: tuple[str | int, ...]) -> str:
    parts = (str(part).encode("utf-8", "replace").decode() for part in path)
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)


def _shown(text: object, most: int = 64) -> str:
    """A name of the client's in a message: short, quoted, printable."""
    return ascii(str(text)[:most])


def _one(code: ErrorCode, detail: str, pointer: str, hint: str = "") -> RequestError:
    return RequestError([FieldError(code, detail, hint, pointer)])


def _at(path: tuple[str | int, ...], data: Any) -> Any:
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _faults(error: ValidationError, data: dict[str, Any], schema: Schema) -> RequestError:
    """What pydantic found, as far as it is told, first what explains most: a misspelt field before a missing one."""
    every = error.errors(include_url=False, include_context=True)
    placed = [(fault, schema.place(fault["loc"], data)) for fault in every]
    found = [(fault, place) for fault, place in placed if not _follows(fault, place, data)]
    found.sort(key=lambda one: _rank(one[0]))
    told = [(fault, place.path, _field_error(fault, place, data, schema)) for fault, place in found[:MAX_ERRORS]]
    misspelt = [path for fault, path, _ in told if fault["type"] == "extra_forbidden"]
    near = [(path[:-1], as_near(str(path[-1]), schema.fields(path[:-1], data))) for path in misspelt]
    # Where two names are as near, either one may be missing.
    written = {(*holder, names[0]) for holder, names in near if len(names) == 1}
    kept = [part for fault, path, part in told if fault["type"] != "missing" or path not in written]
    return RequestError(kept, total=len(found) - len(told) + len(kept))


def _no_kind(data: dict[str, Any]) -> RequestError | None:
    """A body of no known kind: nothing else of it can be judged, but whether a name is one of any kind. Else None."""
    given = data.get("kind")
    if isinstance(given, str) and given in KINDS:
        return None
    known = sorted({name for kind in KINDS for name in _SCHEMA.fields((), {"kind": kind})})
    errors = []
    for name in [name for name in data if name not in known][:MAX_ERRORS]:
        detail = _no_field(name, known)
        errors.append(FieldError(ErrorCode.UNKNOWN_FIELD, detail, listed(known, many=24), _pointer((name,))))
        if "kind" in as_near(name, known):  # it is there, misspelt
            return RequestError(errors)
    missing = "kind" not in data
    detail = "The kind is missing." if missing else f"There is no kind {_shown(given)}."
    code = ErrorCode.INVALID_REQUEST if missing else ErrorCode.UNKNOWN_KIND
    fault = FieldError(code, detail, suggestion(str(given or ""), KINDS), "/kind")
    return RequestError([*errors, fault] if missing else [fault, *errors])


_ALIASES: Final = (("reference", "model"), ("candidate", "model"), ("model", "model"))


def _rank(fault: ErrorDetails) -> int:
    if fault["type"] in ("missing", "union_tag_not_found"):
        return 3
    return 1 if fault["type"] == "extra_forbidden" else 2


def _follows(fault: ErrorDetails, place: Place, data: dict[str, Any]) -> bool:
    """Whether a default is missing, or a list too short, only because of another fault."""
    if fault["type"] == "default_factory_not_called":
        return True
    value = _at(place.path, data)
    return fault["type"] == "too_short" and isinstance(value, list) and len(value) >= fault["ctx"]["min_length"]


def _no_field(name: object, valid: Sequence[str]) -> str:
    near = meant(str(name), valid)
    return f"There is no field {_shown(name)}{f'; {near}' if near else '.'}"


def _field_error(error: ErrorDetails, place: Place, data: dict[str, Any], schema: Schema) -> FieldError:
    path, kind = place.path, error["type"]
    if kind == "extra_forbidden":
        fields = schema.fields(path[:-1], data)
        detail, hint = _no_field(path[-1], fields), listed(fields, many=24)
        return FieldError(ErrorCode.UNKNOWN_FIELD, detail, hint, _pointer(path))
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _tag_error(path, data, schema)
    if kind == "value_error":
        return _rule_error(path, data, error["msg"].removeprefix("Value error, "))
    return _value_error(error, place, data, schema)


def _value_error(error: ErrorDetails, place: Place, data: dict[str, Any], schema: Schema) -> FieldError:
    """A field that is missing, a value that does not fit its field, or a name of a free one that has not its form."""
    path = place.path
    node = schema.at(path, data)
    if path == ("knobs",) and error["type"] in _MISCOUNTED and data.get("kind") in KNOBS:
        why, hint = miscounted(data["kind"], len(data.get("knobs", ())))
        detail = f"{why[:1].upper()}{why[1:]}."
    elif error["type"] == "missing":
        may = allowed(node)
        detail, hint = f"The field {path[-1]!r} is missing.", f"Give {path[-1]}" + (f": {may}." if may else ".")
    elif place.of_name:
        may = allowed(schema.names(path[:-1], data))
        detail, hint = f"The name {_shown(path[-1])} in {_name(path[:-1])} is not {may}.", f"Use {may}."
    else:
        in_document = _in_document(path)
        detail, hint = value_fault(error, _name(path), _at(path, data), node, show=False if in_document else None)
    if path in _ALIASES:
        hint += " `hemostat models list` shows the aliases."
    return FieldError(ErrorCode.INVALID_REQUEST, detail, hint, _pointer(path))


def _name(path: tuple[str | int, ...]) -> str:
    """A field in a sentence: by its own name, an item of a list by the list's."""
    if not path:
        return "the body"
    return f"{path[-2]}[{path[-1]}]" if isinstance(path[-1], int) and len(path) > 1 else str(path[-1])


def _tag_error(path: tuple[str | int, ...], data: dict[str, Any], schema: Schema) -> FieldError:
    """A step's `type`, a text's or a task's `source`, or a decoder's `name`, that does not exist or is missing."""
    tag, valid = schema.tag_name(path, data), schema.tags(path, data)
    holder = _at(path, data)
    given = holder.get(tag) if isinstance(holder, dict) else None
    pointer = _pointer((*path, tag))
    if given is None:
        return FieldError(
            ErrorCode.INVALID_REQUEST, f"The field {tag!r} is missing.", suggestion("", valid, many=len(valid)), pointer
        )
    items = str(path[-2]) if len(path) > 1 else ""
    code = ErrorCode.UNKNOWN_RECIPE if items == "recipe" else ErrorCode.INVALID_REQUEST
    if items == "shapings" and given in DECODERS:
        return FieldError(code, f"There is no shaping {_shown(given)}: {NO_SHAPING}.", listed(valid), pointer)
    what = _TAGGED.get(items, "text source")
    return FieldError(code, f"There is no {what} {_shown(given)}.", suggestion(str(given), valid), pointer)


# What an item of a list is told apart by, in words.
_TAGGED: Final = {
    "recipe": "recipe type",
    "tasks": "task source",
    "decoders": "decoder",
    "shapings": "shaping",
}


def _rule_error(path: tuple[str | int, ...], data: dict[str, Any], message: str) -> FieldError:
    """A rule that spans several fields of one object."""
    holder = _at(path, data)
    if isinstance(holder, dict) and holder.get("pattern") is not None and message.startswith("pattern "):
        return FieldError(ErrorCode.PATTERN_MISMATCH, f"{message}.", "", _pointer((*path, "pattern")))
    if isinstance(holder, dict) and holder.get("groups") is not None and message.startswith("groups "):
        path = (*path, "groups")
    if message.startswith("two tasks are called "):
        path = (*path, "tasks")
    own = next((hint for name, hint in _LIST_HINTS.items() if name in path), "")
    hint = next((hint for start, hint in _RULE_HINTS.items() if message.startswith(start)), own)
    return FieldError(ErrorCode.INVALID_REQUEST, f"{message[:1].upper()}{message[1:]}.", hint, _pointer(path))


_LIST_HINTS: Final = {
    **dict.fromkeys(DECODER_LISTS, "docs/decoders.md lists the decoders and what each takes."),
    "tasks": "docs/tasks.md lists the fields of a task.",
}
_RULE_HINTS: Final = {
    "give either sparsity": "sparsity is the share of the weights that become zero, such as 0.5; pattern keeps N of "
    "every M, such as 2:4.",
    "give either text": "text is plain text; messages are a conversation, of which the assistant's turns are scored.",
    "a level of": "Give a level above 1: at 1 a perplexity ratio has no loss, and no perplexity is lower.",
    "a perplexity has no level": "Give a level above 1, such as 7.5.",
    "thresholds must rise": "Those that are not given are mild 0.01, moderate 0.05, severe 0.2 and collapse 1.",
}
