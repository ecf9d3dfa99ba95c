"""What a field may be, in words, from its JSON schema: "a whole number from 2 to 8"."""

from collections.abc import Mapping
from typing import Any, Final

from app.contracts.requests.calibrate import CALIBRATOR_PATTERN

_NAME: Final = "letters, digits, '.', '_' and '-', the first of them a letter or digit"
# A regular expression helps nobody who mistyped a name.
PATTERNS: Final[Mapping[str, str]] = {
    r"^[A-Za-z0-9][A-Za-z0-9._-]*$": _NAME,
    r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$": "letters, digits, spaces, '.', '_' and '-', the first of them a letter or digit",
    r"^[1-9][0-9]{0,2}:[1-9][0-9]{0,2}$": "N:M, such as 2:4",
    CALIBRATOR_PATTERN: "temperature, confidence, token_bias, lowrank or mixture, several joined by +",
    r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$": f"NAME or OWNER/NAME, each of {_NAME}",
}
Node = Mapping[str, Any]


def allowed(node: Node) -> str:
    """What a value of this schema (references resolved) is; "" where the schema does not say."""
    if "enum" in node or "const" in node:
        names = [str(name) for name in node.get("enum", [node.get("const")])]
        return names[0] if len(names) == 1 else f"one of {', '.join(names)}"
    kind = node.get("type")
    if kind in ("integer", "number"):
        return f"a {'whole ' if kind == 'integer' else ''}number{_bounds(node, whole=kind == 'integer')}"
    if kind == "string":
        size = _size(node, "Length", "character")
        form = PATTERNS.get(node.get("pattern", ""), "")
        if form:
            return f"{size}: {form}" if size else form
        return "a text" + (f" of {size}" if size else "")
    if kind == "array":
        size = _size(node, "Items", "item")
        return "a list" + (f" of {size}" if size else "")
    return {"boolean": "true or false", "object": "an object", "null": "null"}.get(str(kind), "")


def sizes(node: Node) -> str:
    """How long a text, a list or an object may be; "" where the schema does not say."""
    return (
        _size(node, "Length", "character")
        or _size(node, "Items", "item")
        or _size(node, "Properties", "entry", "entries")
    )


def _bounds(node: Node, *, whole: bool) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    above, below = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
    if whole:
        low, high = above + 1 if above is not None else low, below - 1 if below is not None else high
        above = below = None
    if low is not None and high is not None:
        return f" from {_number(low)} to {_number(high)}"
    parts = [
        f"{word} {_number(limit)}"
        for word, limit in (("at least", low), ("above", above), ("at most", high), ("below", below))
        if limit is not None
    ]
    joined = " and ".join(parts)
    return f" {joined}" if joined else ""


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _size(node: Node, what: str, noun: str, plural: str = "") -> str:
    low, high = node.get(f"min{what}"), node.get(f"max{what}")
    many = plural or f"{noun}s"
    if low and high:
        return f"{low:,} to {high:,} {many}"
    if high:
        return f"at most {high:,} {many}"
    return f"at least {low:,} {noun if low == 1 else many}" if low else ""
