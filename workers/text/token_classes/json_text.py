"""JSON wherever it is in a text: its structure, and the calls of tools among it.

A stretch is JSON where a parser accepts it, so there is no guessing by looks. Found in one pass, whatever the text:
what the parser refuses at some character is not read again up to there, except for the parts that were complete before
it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Never

from workers.text.token_classes.text import Mask, Span, TokenText

_OPENING = re.compile(r"[{\[]")
_LEXEME = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]', re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_STRUCTURE = re.compile(r'[{}\[\]:,"]')
# Outside of strings.
_NO_NUMBER = re.compile(r'"(?:[^"\\]|\\.)*"|(-?Infinity|NaN)', re.DOTALL)
# Longer integers are refused by Python, with an error that is none of JSON's.
_MOST_DIGITS = 4000


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


class _NoNumberError(ValueError):
    """NaN or infinity, which Python reads and JSON does not have."""


def _no_number(name: str) -> Never:
    raise _NoNumberError(name)


_DECODER = json.JSONDecoder(parse_int=_integer, parse_constant=_no_number)
# A stretch that breaks after so few characters is read again from its next bracket, which may stand in what was taken
# for a string.
_READ_AGAIN = 512
_DEEPEST = 100
# What the formats in use call the two parts of a call.
NAME_KEYS = ("name", "function", "tool", "tool_name")
ARGUMENT_KEYS = ("arguments", "parameters", "args", "input")
# By name of a tool, the JSON Schema of its arguments.
Tools = Mapping[str, Mapping[str, Any]]
_UNKNOWN: Final[Tools] = {}


@dataclass(frozen=True)
class Found:
    """A stretch of JSON: where it is, and its value."""

    start: int
    end: int
    value: Any


@dataclass(frozen=True)
class Call:
    """A tool call written as JSON: its name and arguments, where their text is (the name without quotes), and what
    the arguments are called."""

    name: str
    arguments: Any
    key: str
    name_span: Span
    arguments_span: Span


def json_structure(text: TokenText) -> Mask:
    """Tokens of braces, brackets, colons, commas and quotation marks alone, within a JSON object that has a key or an
    array of such objects. In any document, code and prose included. What holds NaN or Infinity is not JSON."""
    return text.every(span for found in json_values(text.text) for span in _structure(text.text, found))


def tool_name(text: TokenText) -> Mask:
    """The name of a called tool: in the calls that a message gives as such. Also in each JSON object with a name
    (`name`, `function`, `tool`, `tool_name`) and arguments (`arguments`, `args`, `input`; in an assistant's message
    `parameters` too) that are an object themselves. The definition of a tool is no call."""
    return text.some((*text.tool_names, *(call.name_span for call in _calls(text))))


def tool_arguments(text: TokenText) -> Mask:
    """The arguments of such a call, braces and keys included."""
    return text.touching((*text.tool_arguments, *(call.arguments_span for call in _calls(text))))


def _calls(text: TokenText) -> Iterator[Call]:
    """The calls of a document. What has `parameters` defines a tool more often than it calls one, unless the assistant
    says it."""
    for call in calls_in(text.text):
        answered = any(start <= call.name_span[0] < end for start, end in text.answers)
        if call.key != "parameters" or answered:
            yield call


def json_spans(text: str) -> list[Span]:
    """Where JSON is, for classes that leave it out."""
    return [(found.start, found.end) for found in json_values(text)]


def json_values(text: str) -> Iterator[Found]:
    """The largest stretches that parse as an object with a key, or an array that holds such an object, in order."""
    place = 0
    while (opening := _OPENING.search(text, place)) is not None:
        start = opening.start()
        try:
            value, end = _read(text, start)
        except json.JSONDecodeError as error:
            broken = max(error.pos, start + 1)
            if broken - start <= _READ_AGAIN:
                place = start + 1
                continue
            yield from _complete_parts(text, start, broken)
            place = broken
        except RecursionError:
            place = _too_deep(text, start)
            yield from _complete_parts(text, start, place)
        else:
            if _has_object(value):
                yield Found(start, end, value)
            place = end


def calls_in(text: str, tools: Tools = _UNKNOWN) -> Iterator[Call]:
    """The tool calls among the JSON of a text, in order.

    `tools` are those that the writer may call. An object with the name of one is a call whatever its arguments hold and
    whatever is beside them, unless it repeats the tool's definition. Of other names a definition is distinguished from
    a call by its looks."""
    for found in json_values(text):
        for start, value in _objects(text, found, tools):
            call = _call(text, start, value, tools)
            if call is not None:
                yield call


def _read(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that begins at `start`, and its end. Raises JSONDecodeError, for NaN and infinity too, and
    RecursionError."""
    try:
        return _DECODER.raw_decode(text, start)
    except _NoNumberError:
        # All before it was read, so that the first one outside of strings is where the parser stopped.
        at = next((found.start() for found in _NO_NUMBER.finditer(text, start) if found[1]), start)
        raise json.JSONDecodeError("no number of JSON", text, at) from None


def _complete_parts(text: str, start: int, end: int) -> Iterator[Found]:
    """The largest objects and arrays that open after `start` and close before `end`, where something is wrong."""
    opened: list[int] = []
    closed: list[Span] = []
    for lexeme in _LEXEME.finditer(text, start, end):
        if lexeme[0] in "{[":
            opened.append(lexeme.start())
        elif lexeme[0] in "}]" and opened:
            begin = opened.pop()
            while closed and closed[-1][0] > begin:
                closed.pop()
            closed.append((begin, lexeme.end()))
    for begin, stop in closed:
        try:
            value, _ = _read(text[begin:stop], 0)
        except (json.JSONDecodeError, RecursionError):
            continue
        if _has_object(value):
            yield Found(begin, stop, value)


def _too_deep(text: str, start: int) -> int:
    """Where the brackets that open at `start` are nested deeper than anybody writes: nothing around that is JSON."""
    depth = 0
    for lexeme in _LEXEME.finditer(text, start):
        depth += 1 if lexeme[0] in "{[" else -1 if lexeme[0] in "}]" else 0
        if depth == _DEEPEST:
            return lexeme.end()
    return len(text)


def _has_object(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value)
    return isinstance(value, list) and any(isinstance(item, dict) and item for item in value)


def _structure(text: str, found: Found) -> Iterator[Span]:
    """Signs of the notation: outside of strings, and the quotation marks of strings."""
    place = found.start
    for string in _STRING.finditer(text, found.start, found.end):
        yield from (match.span() for match in _STRUCTURE.finditer(text, place, string.start()))
        yield string.start(), string.start() + 1
        yield string.end() - 1, string.end()
        place = string.end()
    yield from (match.span() for match in _STRUCTURE.finditer(text, place, found.end))


def _objects(text: str, found: Found, tools: Tools) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects at the top and in the arrays and objects below, each with its first character.

    What a call holds is not searched: its arguments are data.
    """
    pending: list[tuple[int, Any]] = [(found.start, found.value)]
    while pending:
        start, value = pending.pop()
        if isinstance(value, dict):
            yield start, value
            if _parts(value, tools) is None:
                pending += [(at, item) for _, at, item in _members(text, start)][::-1]
        elif isinstance(value, list):
            pending += list(_items(text, start))[::-1]


def _parts(value: dict[str, Any], tools: Tools) -> tuple[str, str] | None:
    """The keys of name and arguments where an object is a call.

    The definition of a tool is none. Of a tool that is known, its `parameters` are the tool's schema; of others they
    are a schema or name types, and it has a description, mostly.
    """
    name = next((key for key in NAME_KEYS if isinstance(value.get(key), str) and value[key]), None)
    arguments = next((key for key in ARGUMENT_KEYS if isinstance(value.get(key), dict)), None)
    if name is None or arguments is None:
        return None
    if value[name] in tools:
        defined = arguments == "parameters" and _defines(value, tools[value[name]])
        return None if defined else (name, arguments)
    if "description" in value:
        return None
    if arguments == "parameters" and {"type", "properties"} & set(value[arguments]):
        return None
    return name, arguments


def _defines(value: dict[str, Any], schema: Mapping[str, Any]) -> bool:
    """Whether an object of a known tool's name repeats its definition, word by word or nearly so, and is no call.

    Empty parameters are those of a call without arguments, unless a description is beside them. Others define where
    they are the tool's schema, or have a schema's form and the tool has no argument of such a name.
    """
    given = value["parameters"]
    if not given:
        return "description" in value
    own = schema.get("properties")
    known = set(own) if isinstance(own, dict) else set()
    formed = given.get("type") == "object" and isinstance(given.get("properties"), dict)
    return bool(given == schema) or (formed and not {"type", "properties"} & known)


def _call(text: str, start: int, value: dict[str, Any], tools: Tools) -> Call | None:
    keys = _parts(value, tools)
    if keys is None:
        return None
    places = {key: (at, item) for key, at, item in _members(text, start)}
    (name_at, name), (arguments_at, arguments) = places[keys[0]], places[keys[1]]
    return Call(
        name, arguments, keys[1], _inner(text, name_at), (arguments_at, _DECODER.raw_decode(text, arguments_at)[1])
    )


def _inner(text: str, at: int) -> Span:
    """A string without its quotation marks."""
    return at + 1, _DECODER.raw_decode(text, at)[1] - 1


def _members(text: str, start: int) -> Iterator[tuple[str, int, Any]]:
    """Key, place of the value, and value of each member of the object that begins at `start`."""
    place = _skip(text, start + 1)
    while text[place] != "}":
        key, place = _DECODER.raw_decode(text, place)
        place = _skip(text, _skip(text, place) + 1)
        value, end = _DECODER.raw_decode(text, place)
        yield key, place, value
        place = _skip(text, end)
        if text[place] == ",":
            place = _skip(text, place + 1)


def _items(text: str, start: int) -> Iterator[tuple[int, Any]]:
    """Place and value of each item of the array that begins at `start`."""
    place = _skip(text, start + 1)
    while text[place] != "]":
        value, end = _DECODER.raw_decode(text, place)
        yield place, value
        place = _skip(text, end)
        if text[place] == ",":
            place = _skip(text, place + 1)


def _skip(text: str, place: int) -> int:
    while text[place] in " \t\n\r":
        place += 1
    return place
