"""Numbers that JSON has not: NaN and the infinities, which Python reads and a service refuses."""

from __future__ import annotations

import math
from collections.abc import Iterator

from app.contracts.errors import ErrorCode, HemostatError

_HINT = "give a finite number"


def require_finite(value: object, option: str) -> None:
    """Of what was read from an option, told as the option was written. Raises INVALID_REQUEST."""
    for _, number in _not_finite(value):
        raise HemostatError(ErrorCode.INVALID_REQUEST, f"{option}: {_name(number)} is not a finite number", hint=_HINT)


def require_json(body: object) -> None:
    """Of a request as it is sent. Raises INVALID_JSON with the field."""
    for pointer, number in _not_finite(body):
        raise HemostatError(
            ErrorCode.INVALID_JSON,
            f"The body is not JSON: {_name(number)} is not a JSON number.",
            hint=_HINT,
            pointer=pointer,
        )


def text_or_number(text: str) -> str | float:
    """What is no JSON: the number where it says one that JSON has not (`nan`, `-inf`), else the text as it is."""
    try:
        number = float(text)
    except ValueError:
        return text
    return text if math.isfinite(number) else number


def _name(number: float) -> str:
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"


def _not_finite(value: object) -> Iterator[tuple[str, float]]:
    """Each with its JSON pointer, in the order of the request."""
    pending: list[tuple[str, object]] = [("", value)]
    while pending:
        pointer, here = pending.pop()
        if isinstance(here, float) and not math.isfinite(here):
            yield pointer, here
        elif isinstance(here, dict | list | tuple):
            inner = here.items() if isinstance(here, dict) else enumerate(here)
            parts = [(f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}", one) for key, one in inner]
            pending += reversed(parts)
