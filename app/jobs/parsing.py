"""From the bytes of a body to a valid request, or to the list of what is wrong with it.

Everything that needs no model is checked here, before anything is written. The messages never repeat a document's text.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any, Final, NoReturn, TypeVar

from pydantic import TypeAdapter, ValidationError

from app.contracts.base import Contract
from app.contracts.bounded import JsonError, parse
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.request import Submission
from app.jobs.faults import Schema, fields_of, in_document, no_field, pointer_of, request_error, shown
from app.kinds.registry import KINDS, kind_of, submissions
from app.models.knobs import lift_knobs
from app.models.nearest import as_near, listed, suggestion
from app.problems import MAX_ERRORS, FieldError, RequestError

MAX_MARKS: Final = 800_000  # 5,000 conversations of twelve turns have as many brackets, colons and quotes
_LOOKED_INTO: Final = 1 << 20  # bytes of a body whose fault is found more exactly than by its line and column
_Contract = TypeVar("_Contract", bound=Contract)
_Read = TypeVar("_Read")
# An escape of half a surrogate pair.
_HALF: Final = re.compile(
    rb"(?<!\\)((?:\\\\)*)\\u"
    rb"(?:[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u)[dD][c-fC-F][0-9a-fA-F]{2})"
)


def parse_submission(body: bytes) -> Submission:
    """The request. Raises HemostatError (INVALID_JSON) or RequestError with a JSON pointer for each fault."""
    data = _object(body)
    if isinstance(data.get("generate_tool_calls"), bool):
        data["generate_tool_calls"] = {} if data["generate_tool_calls"] else None
    kind = kind_of(data.get("kind"))
    if kind is None:
        raise _no_kind(data)
    return _valid(submissions(), lift_knobs(data, kind))


def parse_body(body: bytes, contract: type[_Contract]) -> _Contract:
    """Any other body; refused as a submission is."""
    adapter: TypeAdapter[_Contract] = _adapter(contract)
    return _valid(adapter, _object(body))


@cache
def _adapter(contract: type[_Contract]) -> TypeAdapter[_Contract]:
    return TypeAdapter(contract)


@cache
def _schema(adapter: TypeAdapter[Any]) -> Schema:
    return Schema(adapter.json_schema())


def _valid(adapter: TypeAdapter[_Read], data: dict[str, Any]) -> _Read:
    try:
        made: _Read = adapter.validate_python(data, strict=True)
    except ValidationError as error:
        raise request_error(error, _schema(adapter)) from None
    return made


# --- JSON


def _object(body: bytes) -> dict[str, Any]:
    """The object, its lists as tuples: strict reading of Python takes no list for one."""
    try:
        data, names = _parsed(body)
    except JsonError as error:
        raise _no_json(str(error)) from None
    tidy = _Tidy()
    data = tidy.value(data)
    if tidy.faults:
        no_json = [fault for fault in tidy.faults if fault.code is ErrorCode.INVALID_JSON]
        raise RequestError(sorted(no_json or tidy.faults, key=lambda fault: fault.pointer))
    if tidy.names < names:
        _refuse_twice(body)
    if not isinstance(data, dict):
        raise HemostatError(ErrorCode.INVALID_REQUEST, "The body is not a JSON object.")
    return data


def _parsed(body: bytes) -> tuple[Any, int]:
    """As `parse`; half a surrogate pair becomes a NUL character, whose place is then told."""
    try:
        return parse(body, MAX_MARKS)
    except JsonError:
        whole, halves = _HALF.subn(rb"\1\\u0000", body) if len(body) <= _LOOKED_INTO else (body, 0)
        if not halves:
            raise
        return parse(whole, MAX_MARKS)


class _Tidy:
    """One walk over all values: lists become tuples, names are counted, what is no text or no number is noted."""

    def __init__(self) -> None:
        self.names = 0
        self.faults: list[FieldError] = []
        self._path: list[str | int] = []
        self._within = 0  # values in the JSON that strings of JSON hold

    def value(self, value: Any) -> Any:
        """The value for strict reading; changes its objects."""
        if isinstance(value, str):
            self._text(value)
        elif isinstance(value, dict):
            self.names += len(value)
            for name, inner in value.items():
                self._path.append(name)
                self._text(name)
                self._count_within(name, inner)
                value[name] = self.value(inner)
                self._path.pop()
        elif isinstance(value, list):
            return tuple(self._items(value))
        elif isinstance(value, float) and not math.isfinite(value):
            detail = "The body is not JSON: the number is NaN, infinite or beyond every float."
            self._fault(ErrorCode.INVALID_JSON, detail, "Give a finite number.")
        return value

    def _items(self, items: list[Any]) -> Iterator[Any]:
        self._path.append(0)
        for index, inner in enumerate(items):
            self._path[-1] = index
            yield self.value(inner)
        self._path.pop()

    def _text(self, text: str) -> None:
        if "\0" in text:
            detail = f"The text holds a NUL character or half a surrogate pair at index {text.index(chr(0))}."
            code = ErrorCode.DOCUMENT_NOT_TEXT if in_document(self._path) else ErrorCode.INVALID_REQUEST
            self._fault(code, detail, "Remove NUL characters and halves of surrogate pairs.")

    def _fault(self, code: ErrorCode, detail: str, hint: str) -> None:
        if len(self.faults) < MAX_ERRORS:
            self.faults.append(FieldError(code, detail, hint, pointer_of(self._path)))

    def _count_within(self, name: str, value: Any) -> None:
        """The arguments of a call may be JSON in a string, which is parsed when the call is."""
        if name == "arguments" and isinstance(value, str):
            self._within += sum(map(value.count, "[{:,"))
            if self._within > MAX_MARKS:
                raise _no_json("arguments in strings have too many values")


def _no_json(why: str) -> HemostatError:
    return HemostatError(ErrorCode.INVALID_JSON, f"The body is not acceptable JSON: {why}.")


def _refuse_twice(body: bytes) -> NoReturn:
    def look(pairs: list[tuple[str, Any]]) -> None:
        twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
        if twice:
            raise _no_json(f"an object names {shown(twice[0])} twice")

    if len(body) <= _LOOKED_INTO:
        json.loads(body, object_pairs_hook=look)
    raise _no_json("an object names a field twice")


# --- the kind


def _no_kind(data: dict[str, Any]) -> RequestError:
    """A body of no known kind: nothing else of it can be judged, but whether a name is one of any kind."""
    schema = _schema(submissions())
    known = sorted({name for kind in KINDS for name in fields_of(schema.place((kind,)).node)})
    errors = []
    for name in [name for name in data if name not in known][:MAX_ERRORS]:
        part = FieldError(ErrorCode.UNKNOWN_FIELD, no_field(name, known), listed(known, many=24), pointer_of((name,)))
        errors.append(part)
        if "kind" in as_near(name, known):  # it is there, misspelt
            return RequestError(errors)
    given, missing = data.get("kind"), "kind" not in data
    detail = "The kind is missing." if missing else f"There is no kind {shown(given)}."
    code = ErrorCode.INVALID_REQUEST if missing else ErrorCode.UNKNOWN_KIND
    fault = FieldError(code, detail, suggestion(shown(given or ""), KINDS), "/kind")
    return RequestError([*errors, fault] if missing else [fault, *errors])
