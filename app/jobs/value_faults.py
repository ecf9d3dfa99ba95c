"""A value that does not fit its field, in words: what it is, what it may be, and what was probably meant."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic_core import ErrorDetails

from app.jobs.allowed import allowed, sizes
from app.models.nearest import listed, meant

YES: Final = frozenset({"yes", "y", "on", "true", "1", "t"})
NO: Final = frozenset({"no", "n", "off", "false", "0", "f"})
MAX_SHOWN: Final = 64
_OBJECTS: Final = frozenset({"model_type", "model_attributes_type", "dict_type"})
_SIZES: Final = frozenset({"too_short", "too_long", "string_too_short", "string_too_long"})


def value_fault(
    error: ErrorDetails, name: str, value: Any, node: Mapping[str, Any], *, show: bool | None = None
) -> tuple[str, str]:
    """(detail, hint) of what pydantic found wrong with the `value` of the field `name`, whose JSON schema is `node`.

    A text is repeated only where the field takes names, and never where it may be a document's (`secret`).
    """
    may = allowed(node) or (
        "an object" if error["type"] in ("model_type", "model_attributes_type", "dict_type") else ""
    )
    if not may:
        return f"{name}: {error['msg']}.", ""
    if error["type"] in _SIZES and isinstance(value, str | list | dict) and sizes(node):
        what = "characters" if isinstance(value, str) else "items" if isinstance(value, list) else "entries"
        return f"{name} has {len(value):,} {what}, not {sizes(node)}.", f"Give {may}."
    choices = [str(choice) for choice in node.get("enum", ())]
    if choices:
        near = meant(value, choices) if isinstance(value, str) else ""
        told = f"{name} is {_shown(value, named=show is not False)}, not {may}"
        return f"{told}; {near}" if near else f"{told}.", listed(choices)
    if node.get("type") == "boolean" and isinstance(value, str) and value.casefold() in YES | NO:
        told = "true" if value.casefold() in YES else "false"
        return f"{name} is {value!r}, not true or false; did you mean {told}?", "Give true or false, without quotes."
    if show is False and isinstance(value, str):
        return f"{name} is not {may}.", f"Give {may}."
    return f"{name} is {_shown(value, named=show or 'pattern' in node)}, not {may}.", f"Give {may}."


def _shown(value: Any, *, named: bool) -> str:
    if isinstance(value, str):
        return ascii(value[:MAX_SHOWN]) if named else "a text"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)[:MAX_SHOWN]
    return "a list" if isinstance(value, list) else "an object"
