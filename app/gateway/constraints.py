"""Limits of what constrains an answer or fills a template: schemas, grammars, tools, biases, arguments of templates.

A grammar is compiled before its first token, in the process that draws everybody's tokens. The compiler, xgrammar,
takes 1.1 s for a schema of 512 optional properties, 7.5 s if others may come beside them. It takes 4 s if their names
have 100 characters. A `maxLength` above 128 takes 2 s by itself, fifty `[^x]?` in a row minutes. So sizes, depths,
counts and the cost of patterns (`app.gateway.patterns`) are bounded here, wherever they are.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from app.contracts.bounded import parse
from app.gateway.body import MAX_MARKS
from app.gateway.errors import invalid
from app.gateway.patterns import grammar_cost, regex_cost

MAX_PROPERTIES: Final = 512  # of a schema, on all its levels together
MAX_ENUM: Final = 1000  # values, likewise
MAX_TOOLS_PROPERTIES: Final = 1024  # of tools that become one grammar, together
MAX_TOOLS_ENUM: Final = 2000
MAX_COMPILE_MS: Final = 2000.0  # of a processor, for what a request's properties, patterns, lengths, … cost together
MAX_TOOL_NAME: Final = 64
MAX_TOOLS_BYTES: Final = 262_144
MAX_REGEX: Final = 4096
MAX_GRAMMAR: Final = 16_384  # and of all grammars and patterns together: to read them takes time, too
MAX_CHOICES: Final = 256
MAX_CHOICE: Final = 1024
MAX_BIASES: Final = 1024
MAX_BIAS: Final = 100
_MAX_BIAS_DIGITS: Final = 10
_MAX_WORD: Final = 256
_MAX_LABEL: Final = 512


class Size(NamedTuple):
    """Bytes as compact JSON in UTF-8, and levels of lists and objects."""

    size: int
    depth: int


SCHEMA: Final = Size(65_536, 32)
_JSON: Final[dict[str, Size]] = {
    "response_format": SCHEMA,
    "structured_outputs": SCHEMA,
    "text": SCHEMA,
    "chat_template_kwargs": Size(16_384, 8),
    "vllm_xargs": Size(16_384, 4),
    "tool_choice": Size(16_384, 8),
    "repetition_detection": Size(4096, 4),
    "stream_options": Size(4096, 4),
    "reasoning": Size(4096, 4),
}
_LENGTH_MS, _UNROLLED = 10.0, 192  # of a place of a string with a length; longer strings cost no more
# By the dearest kind: 15 `uri-template` take 1.7 s, a date 1 ms. Many take more than each by itself.
_KEYWORD_MS: Final = {
    "format": 130.0,
    "$ref": 0.3,
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), 20.0),
}
# Any other name may come after each property: the grammar has the place of any character once more.
_PROPERTY_MS, _OPEN_PROPERTY_MS = 0.3, 18.0
# Each optional property may be followed by each later one. Long names take more, the more so among many.
_PAIR_MS, _PAIR_CHARACTER_MS, _SQUARE_MS = 0.0042, 1.04e-4, 7.1e-5
_COUNTED_MS = 0.003  # of three optional properties: where they are counted, the grammar has a place for each count
_REGEXES: Final = ("pattern", "regex", "whitespace_pattern")
_FREE: Final = (None, "none", "auto")  # values of `tool_choice` that hold the answer to no tool
_ENTRIES: Final = {"chat_template_kwargs": 32}
_LABELS: Final = ("user", "request_id", "session_id", "cache_salt")  # short strings that say whose request it is
_TEXTS: Final = {"regex": MAX_REGEX, "grammar": MAX_GRAMMAR, "whitespace_pattern": MAX_REGEX}
_GONE: Final = {  # vLLM no longer has them, and would answer without any constraint
    "guided_json": "json",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
    "guided_json_object": "json_object",
    "guided_whitespace_pattern": "whitespace_pattern",
    "guided_decoding_backend": "",
}


def check(body: dict[str, Any]) -> None:
    """Raises ApiError (400), naming the field, for the first thing that is beyond a limit."""
    for name, instead in _GONE.items():
        if body.get(name) is not None:
            hint = f'Give `structured_outputs`: {{"{instead}": …}}.' if instead else "Leave it out."
            raise invalid(f"`{name}` is no longer a field of vLLM, and would be ignored.", name, hint=hint)
    for name, size in _JSON.items():
        _fits(body.get(name), name, size)
    for name, most in _ENTRIES.items():
        _entries(body.get(name), name, most)
    for name in _LABELS:
        _text(body.get(name), name, _MAX_LABEL)
    for number, word in enumerate(_list(body.get("bad_words"))):
        _text(word, f"bad_words[{number}]", _MAX_WORD)
    _biases(body.get("logit_bias"))
    for name in ("response_format", "text"):
        _counts(body.get(name), name)
    _structured(body.get("structured_outputs"))
    _tools(body.get("tools"), required=body.get("tool_choice") == "required")
    if body.get("allowed_token_ids") is not None and grammar_of(body) is not None:
        raise invalid(
            "`allowed_token_ids` and a grammar may leave no token to draw: give one of them.", "allowed_token_ids"
        )
    _compiles(body)


def _compiles(body: dict[str, Any]) -> None:
    """Bounds what compiling takes, of all fields together."""
    total = 0.0
    for name in ("response_format", "text", "structured_outputs", "tools"):
        total += _compile_ms(_held(body) if name == "tools" else body.get(name), name)
        if total > MAX_COMPILE_MS:
            raise invalid(
                f"The properties, patterns, lengths, formats, bounds and references of `{name}` take too long to "
                f"compile: {min(total, 1e6) / 1000:.1f} s by a rough estimate; at most "
                f"{MAX_COMPILE_MS / 1000:g} s are taken.",
                name,
                hint="Give fewer or shorter repeats (`{m,n}`, `?`, `*`), fewer different `maxLength`, fewer "
                "`format`, `minimum` and `maximum`, fewer properties that are not `required`, or no "
                "`additionalProperties`.",
            )


def _compile_ms(value: Any, field: str) -> float:
    lengths: set[tuple[float, float]] = set()  # xgrammar makes one rule of equal ones
    total, characters = 0.0, 0
    for inner in _objects(value):
        for name in ("json", "structural_tag"):
            if isinstance(inner.get(name), str):
                total += _compile_ms(_parsed(inner[name], f"structured_outputs.{name}"), field)
        patterns, grammars = _patterns(inner), _strings(inner, ("grammar",))
        characters += sum(map(len, patterns + grammars))
        if characters > MAX_GRAMMAR:
            raise invalid(f"The patterns and grammars of `{field}` have more than {MAX_GRAMMAR} characters.", field)
        total += sum(map(regex_cost, patterns)) + sum(map(grammar_cost, grammars))
        total += sum(ms for name, ms in _KEYWORD_MS.items() if isinstance(inner.get(name), str | int | float))
        total += _properties_ms(inner)
        lengths.add((_number(inner.get("minLength")), _number(inner.get("maxLength"))))
    return total + _LENGTH_MS * sum(min(_UNROLLED, max(pair)) for pair in lengths)


def _patterns(inner: dict[str, Any]) -> list[str]:
    named = inner.get("patternProperties")
    return _strings(inner, _REGEXES) + (list(named) if isinstance(named, dict) else [])


def _strings(inner: dict[str, Any], names: Iterable[str]) -> list[str]:
    return [inner[name] for name in names if isinstance(inner.get(name), str)]


def _properties_ms(schema: dict[str, Any]) -> float:
    names = schema.get("properties")
    if not isinstance(names, dict):
        return 0.0
    required = {name for name in _list(schema.get("required")) if isinstance(name, str)}
    optional = [len(name) for name in names if name not in required]
    pairs = len(optional) * (_PAIR_MS * len(optional) + _PAIR_CHARACTER_MS * sum(optional))
    is_open = any(schema.get(name) not in (None, False) for name in ("additionalProperties", "unevaluatedProperties"))
    each = _PROPERTY_MS + _OPEN_PROPERTY_MS * is_open
    counted = any(schema.get(name) is not None for name in ("minProperties", "maxProperties"))
    triples = _COUNTED_MS * counted * len(optional) ** 3
    return each * len(names) + pairs + triples + _SQUARE_MS * sum(length**2 for length in optional)


def grammar_of(body: dict[str, Any]) -> bytes | None:
    """A digest of what the engine makes a grammar of; None if the answer is free."""
    parts = [_constraining(body.get("response_format")), _constraining(body.get("text"))]
    parts += [body.get("structured_outputs"), _held(body)]
    if not any(parts):
        return None
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).digest()


def _held(body: dict[str, Any]) -> list[Any]:
    """Tools that become a grammar."""
    return [tool for tool in _list(body.get("tools")) if _strict(tool) or body.get("tool_choice") not in _FREE]


def _constraining(given: Any) -> Any:
    """A `response_format`, or the `text` of a response, unless it asks for plain text."""
    form = given.get("format", given) if isinstance(given, dict) else None
    return None if not isinstance(form, dict) or form.get("type", "text") == "text" else given


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) else 0.0


def _structured(given: Any) -> None:
    if not isinstance(given, dict):
        return
    for name, most in _TEXTS.items():
        _text(given.get(name), f"structured_outputs.{name}", most)
    choices = _list(given.get("choice"))
    if len(choices) > MAX_CHOICES:
        raise invalid(
            f"`structured_outputs.choice` has {len(choices)} entries; at most {MAX_CHOICES} are taken.",
            "structured_outputs.choice",
        )
    for number, choice in enumerate(choices):
        _text(choice, f"structured_outputs.choice[{number}]", MAX_CHOICE)
    for name in ("json", "structural_tag"):
        value = given.get(name)
        param = f"structured_outputs.{name}"
        if isinstance(value, str):  # JSON within JSON
            value = _parsed(value, param)
            _fits(value, param, SCHEMA)
        _counts(value, param)


def _tools(tools: Any, *, required: bool) -> None:
    """Each by itself, and those that an answer is held to also together. One grammar is made of them: xgrammar takes 27
    s for 16 of 512 properties, a second for two."""
    size = 0
    for number, tool in enumerate(_list(tools)):
        param = f"tools[{number}]"
        if not isinstance(tool, dict):
            raise invalid(f"`{param}` is not an object.", param)
        function = tool.get("function")
        if isinstance(function, dict):
            _text(function.get("name"), f"{param}.function.name", MAX_TOOL_NAME)
        _text(tool.get("name"), f"{param}.name", MAX_TOOL_NAME)  # as the Responses API has it
        size += _fits(tool, param, SCHEMA)
        _counts(tool, param)
    if size > MAX_TOOLS_BYTES:
        raise invalid(f"`tools` has {size} bytes as JSON; at most {MAX_TOOLS_BYTES} are taken.", "tools")
    held = [tool for tool in _list(tools) if required or _strict(tool)]
    _counts(held, "tools", properties=MAX_TOOLS_PROPERTIES, values=MAX_TOOLS_ENUM)


def _strict(tool: Any) -> bool:
    """Whether a tool asks for arguments that keep its schema."""
    return isinstance(tool, dict) and any(
        isinstance(one, dict) and one.get("strict") is True for one in (tool, tool.get("function"))
    )


def _biases(biases: Any) -> None:
    if biases is None:
        return
    if not isinstance(biases, dict):
        raise invalid("`logit_bias` is not an object.", "logit_bias")
    if len(biases) > MAX_BIASES:
        raise invalid(f"`logit_bias` names {len(biases)} tokens; at most {MAX_BIASES} are taken.", "logit_bias")
    for token, bias in biases.items():
        if not (token.isascii() and token.isdecimal() and len(token) <= _MAX_BIAS_DIGITS):
            raise invalid(f"`logit_bias` names {token[:24]!a}, which is no token id.", "logit_bias")
        if isinstance(bias, bool) or not isinstance(bias, int | float):
            raise invalid(f"`logit_bias` of token {token} is not a number.", "logit_bias")
        if not -MAX_BIAS <= bias <= MAX_BIAS:
            raise invalid(
                f"`logit_bias` of token {token} is {str(bias)[:24]}; it must be from {-MAX_BIAS} to {MAX_BIAS}.",
                "logit_bias",
            )


def _fits(value: Any, param: str, size: Size) -> int:
    """Its bytes."""
    if value is None:
        return 0
    depth = _depth(value)
    if depth > size.depth:
        raise invalid(f"`{param}` is nested {depth} levels deep; at most {size.depth} are taken.", param)
    found = len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))
    if found > size.size:
        raise invalid(f"`{param}` has {found} bytes as JSON; at most {size.size} are taken.", param)
    return found


def _entries(value: Any, param: str, most: int) -> None:
    if value is None:
        return
    if not isinstance(value, dict):
        raise invalid(f"`{param}` is not an object.", param)
    if len(value) > most:
        raise invalid(f"`{param}` has {len(value)} entries; at most {most} are taken.", param)


def _text(value: Any, param: str, most: int) -> None:
    """A value that is no string is the replica's to judge."""
    if isinstance(value, str) and len(value) > most:
        raise invalid(f"`{param}` has {len(value)} characters; at most {most} are taken.", param)


def _parsed(text: str, param: str) -> Any:
    """The JSON of a string; None if it is none, which the replica says better."""
    _text(text, param, SCHEMA.size)
    try:
        return parse(text.encode(), MAX_MARKS)[0]
    except ValueError:
        return None


def _counts(value: Any, param: str, *, properties: int = MAX_PROPERTIES, values: int = MAX_ENUM) -> None:
    """Properties and values of enumerations, wherever they stand: a schema may lie in `$defs` or under a keyword."""
    named = enumerated = 0
    for inner in _objects(value):
        named += sum(
            len(inner[name]) for name in ("properties", "patternProperties") if isinstance(inner.get(name), dict)
        )
        enumerated += len(_list(inner.get("enum")))
    if named > properties:
        raise invalid(f"`{param}` has {named} properties in all; at most {properties} are taken.", param)
    if enumerated > values:
        raise invalid(f"`{param}` enumerates {enumerated} values; at most {values} are taken.", param)


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            yield one
            left += one.values()
        elif isinstance(one, list):
            left += one


def _depth(value: Any) -> int:
    """Levels of lists and objects; 0 for a text or a number."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return depth


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
