"""What pydantic found wrong with a request, as parts of a problem: which field, what is wrong, what was meant."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from app.contracts.decoding import DECODERS, NO_SHAPING
from app.contracts.errors import ErrorCode
from app.kinds.calibrate.calibrators import NAMES
from app.kinds.calibrate.request import CALIBRATOR_PATTERN
from app.models.nearest import as_near, listed, meant, suggestion
from app.problems import MAX_ERRORS, FieldError, RequestError

_LONGEST: Final = 200
MAX_COUNTED: Final = 20_000  # pydantic builds a description of each fault, whether it is shown or not
Path = tuple[str | int, ...]
Node = Mapping[str, Any]
_NAME: Final = "letters, digits, '.', '_' and '-', the first of them a letter or digit"
# A regular expression helps no one who mistyped a name.
PATTERNS: Final[Mapping[str, str]] = {
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": _NAME,
    r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$": "letters, digits, spaces, '.', '_' and '-', the first of them a letter or digit",
    r"^[1-9][0-9]{0,2}:[1-9][0-9]{0,2}$": "N:M, such as 2:4",
    CALIBRATOR_PATTERN: f"{NAMES}, several joined by +",
    r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$": f"NAME or OWNER/NAME, each of {_NAME}",
}
_TYPES: Final = {
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "an object"),
    "tuple_type": "a list",
    "string_type": "a text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
}
# What the items of a list are distinguished by, in words.
_TAGGED: Final = {"recipe": "recipe type", "tasks": "task source", "decoders": "decoder", "shapings": "shaping"}
_OUTSIDE: Final = {
    **dict.fromkeys(("greater_than", "greater_than_equal"), "too small"),
    **dict.fromkeys(("less_than", "less_than_equal"), "too large"),
}
_LEAST: Final = {"minimum": "at least", "exclusiveMinimum": "above"}
_MOST: Final = {"maximum": "at most", "exclusiveMaximum": "below"}
_YES: Final = frozenset({"yes", "y", "on", "true", "1", "t"})
_NO: Final = frozenset({"no", "n", "off", "false", "0", "f"})


class Place(NamedTuple):
    """Where a fault is: its path in the body, its schema and its parent's; `of_name`: the name there is at fault."""

    path: Path
    node: Node
    parent: Node
    of_name: bool = False


class Schema:
    """A JSON schema as pydantic writes it: local references, `anyOf` for null, `oneOf` with a discriminator."""

    def __init__(self, root: Node) -> None:
        self._root = root

    def place(self, loc: Sequence[str | int]) -> Place:
        """The place that pydantic's location means: without the tags of unions, which the schema shows from fields."""
        path: list[str | int] = []
        node = self._plain(self._root)
        parent: Node = {}
        for part in loc:
            if "discriminator" in node:
                node = self._plain({"$ref": node["discriminator"]["mapping"].get(part, "")})
            elif part == "[key]" and parent and "properties" not in parent:
                return Place(tuple(path), node, parent, of_name=True)
            elif node.keys() & {"properties", "additionalProperties", "patternProperties", "items", "prefixItems"}:
                path.append(part)
                parent, node = node, self._plain(_step(node, part))
        return Place(tuple(path), node, parent)

    def _plain(self, node: Any) -> Node:
        while True:
            if "$ref" in node:
                node = self._root["$defs"].get(node["$ref"].rpartition("/")[2], {})
            elif "anyOf" in node:
                node = next((branch for branch in node["anyOf"] if branch.get("type") != "null"), {})
            else:
                return node  # type: ignore[no-any-return]


def _step(node: Node, part: str | int) -> Node:
    if isinstance(part, int):
        inner = node.get("items", {})
    else:
        free = [*node.get("patternProperties", {}).values(), node.get("additionalProperties", {})][0]
        inner = node.get("properties", {}).get(part, free)
    return inner if isinstance(inner, dict) else {}


def pointer_of(path: Sequence[str | int]) -> str:
    """The JSON pointer; of a name that is very long, its start."""
    return "".join("/" + str(part)[:_LONGEST].replace("~", "~0").replace("/", "~1") for part in path)


def shown(text: object) -> str:
    """What a client wrote, in a message: short, quoted, printable."""
    return ascii(str(text)[:64])


def in_document(path: Sequence[str | int]) -> bool:
    """Whether a place is in an inline document, of which nothing is repeated."""
    return "documents" in path[1:]


def request_error(error: ValidationError, schema: Schema) -> RequestError:
    """Every fault, first what explains most: a misspelt field before a missing one."""
    if error.error_count() > MAX_COUNTED:
        detail = f"The body has {error.error_count():,} faults, too many to list."
        return RequestError([FieldError(ErrorCode.INVALID_REQUEST, detail)])
    every = error.errors(include_url=False)
    faults = sorted((fault for fault in every if not _follows(fault)), key=_rank)
    first = [(fault, schema.place(fault["loc"])) for fault in faults[:MAX_ERRORS]]
    near = [(at.path[:-1], as_near(str(at.path[-1]), fields_of(at.parent))) for fault, at in first if _misspelt(fault)]
    # Where two names are as near, either one may be missing.
    written = {(*holder, names[0]) for holder, names in near if len(names) == 1}
    parts = [part_of(fault, at) for fault, at in first if fault["type"] != "missing" or at.path not in written]
    return RequestError(parts, total=len(faults) - len(first) + len(parts))


def _misspelt(fault: ErrorDetails) -> bool:
    return fault["type"] == "extra_forbidden"


def _rank(fault: ErrorDetails) -> int:
    return 3 if fault["type"] in ("missing", "union_tag_not_found") else 1 if _misspelt(fault) else 2


def _follows(fault: ErrorDetails) -> bool:
    """Whether a default is missing, or a list too short, only because of another fault."""
    given = fault["input"]
    if fault["type"] == "default_factory_not_called":
        return True
    return fault["type"] == "too_short" and isinstance(given, tuple) and len(given) >= fault["ctx"]["min_length"]


def fields_of(node: Node) -> list[str]:
    """Names that an object of this schema may have; [] where it may have any."""
    return sorted(node.get("properties", {}))


def no_field(name: object, valid: Sequence[str]) -> str:
    """Says that there is no such field, and which was probably meant."""
    near = meant(str(name), valid)
    return f"There is no field {shown(name)}{f'; {near}' if near else '.'}"


def part_of(fault: ErrorDetails, at: Place) -> FieldError:
    """One fault."""
    kind, path = fault["type"], at.path
    if kind == "extra_forbidden":
        valid = fields_of(at.parent)
        return FieldError(ErrorCode.UNKNOWN_FIELD, no_field(path[-1], valid), listed(valid, many=24), pointer_of(path))
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _tag_part(fault, at)
    if kind in ("rule", "value_error"):
        return _rule_part(fault, path)
    code = ErrorCode.INVALID_REQUEST
    if kind == "missing":
        return FieldError(code, f"The field {path[-1]!r} is missing.", f"Give {path[-1]}.", pointer_of(path))
    if kind == "too_long" and path[-1:] == ("documents",):
        code = ErrorCode.TOO_MANY_DOCUMENTS
    name = f"the name {shown(path[-1])} in {_name(path[:-1])}" if at.of_name else _name(path)
    detail, hint = value_fault(fault, name, {} if at.of_name else at.node, secret=in_document(path))
    if path[-2:] in (("reference", "model"), ("candidate", "model")):
        add = "`hemostat models add ALIAS FOLDER|HUB_ID` adds one."
        hint = f"{hint} `hemostat models list` shows the aliases, {add}".strip()
    return FieldError(code, detail[:1].upper() + detail[1:] if at.of_name else detail, hint, pointer_of(path))


def value_fault(fault: ErrorDetails, name: str, node: Node, *, secret: bool = False) -> tuple[str, str]:
    """(detail, hint) of a value that does not fit; `secret`: a text is not repeated."""
    given, choices = fault["input"], [str(choice) for choice in node.get("enum", ())]
    if choices:
        should, hint = f"one of {', '.join(choices)}", listed(choices)
    elif fault["type"] == "string_pattern_mismatch":
        should = PATTERNS.get(fault["ctx"]["pattern"], "of another form")
        hint = f"Give {should}."
    elif fault["type"] in _TYPES:
        should, hint = _TYPES[fault["type"]], ""
    else:
        message = fault["msg"].removeprefix("Input should be ")
        if message == fault["msg"]:
            message = message.replace("Tuple", "list").replace("String", "text").replace("Dictionary", "object")
            return f"{name}: the {message.replace(' after validation', '')}.", ""
        hint = _range_hint(name, node)
        should = _OUTSIDE.get(fault["type"], message) if hint else message
    near = "" if secret or not isinstance(given, str) else _meant(given, choices, fault["type"])
    named = near or not fault["type"].endswith(("_type", "_parsing"))
    is_not = f"{', which is' if should in _OUTSIDE.values() else ', not'} {should}"
    told = f"{name} is {_value(given, secret=secret or not named)}{is_not}"
    return f"{told}; {near}" if near else f"{told}.", hint


def _range_hint(name: str, node: Node) -> str:
    """The whole range of a number; "" if the schema has no limit."""
    ends = [f"{words} {_number(node[key])}" for keys in (_LEAST, _MOST) for key, words in keys.items() if key in node]
    return f"{name} must be {' and '.join(ends)}." if ends else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _meant(given: str, choices: Sequence[str], kind: str) -> str:
    if kind.startswith("bool_") and given.casefold() in _YES | _NO:
        return f"did you mean {'true' if given.casefold() in _YES else 'false'}?"
    return meant(given, choices) if choices else ""


def _value(given: object, *, secret: bool) -> str:
    if isinstance(given, str):
        return "a text" if secret else shown(given)
    if given is None or isinstance(given, bool):
        return {None: "null", True: "true", False: "false"}[given]
    if isinstance(given, int | float):
        return repr(given)[:64]
    return "a list" if isinstance(given, list | tuple) else "an object"


def _name(path: Path) -> str:
    """A field in a sentence: by its path, in backticks; in an object of a list, such as a step, by its name there."""
    if not path:
        return "the body"
    below = max((at for at, part in enumerate(path[:-1], 1) if isinstance(part, int)), default=0)
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path[below:]).removeprefix(".")
    return name if below else f"`{name}`"


def _tag_part(fault: ErrorDetails, at: Place) -> FieldError:
    """A step's `type`, a text's or a task's `source`, or a decoder's `name`, that does not exist or is missing."""
    rule = at.node["discriminator"]
    tag, valid, pointer = rule["propertyName"], sorted(rule["mapping"]), pointer_of((*at.path, rule["propertyName"]))
    if fault["type"] == "union_tag_not_found":
        return FieldError(
            ErrorCode.INVALID_REQUEST, f"The field {tag!r} is missing.", listed(valid, many=len(valid)), pointer
        )
    given, items = fault["ctx"]["tag"], str(at.path[-2]) if len(at.path) > 1 else ""
    code = ErrorCode.UNKNOWN_RECIPE if items == "recipe" else ErrorCode.INVALID_REQUEST
    why = NO_SHAPING if items == "shapings" and given in DECODERS else ""
    detail = f"There is no {_TAGGED.get(items, 'text source')} {shown(given)}{f': {why}' if why else ''}."
    return FieldError(code, detail, listed(valid) if why else suggestion(str(given), valid), pointer)


def _rule_part(fault: ErrorDetails, path: Path) -> FieldError:
    """A rule that a validator of the contract holds."""
    context = fault.get("ctx", {})
    message = fault["msg"].removeprefix("Value error, ")
    detail = f"{message[:1].upper()}{message[1:]}."
    code = ErrorCode(context.get("code", ErrorCode.INVALID_REQUEST))
    return FieldError(code, detail, context.get("hint", ""), pointer_of((*path, *context.get("at", ()))))
