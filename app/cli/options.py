"""Options that several commands share, and how they are read."""

from __future__ import annotations

from typing import Annotated

import typer

from app.contracts.errors import ErrorCode, HemostatError

Url = Annotated[str | None, typer.Option(envvar="HEMOSTAT_URL", help="Address of a running service.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output, everything else on standard error.")]


def pairs(values: list[str] | None, option: str) -> dict[str, str]:
    """`key=value`, each given once. Raises INVALID_REQUEST."""
    found = {}
    for value in values or []:
        key, equals, rest = value.partition("=")
        if not equals:
            raise HemostatError(ErrorCode.INVALID_REQUEST, f"{option} {value!r} is not KEY=VALUE")
        found[key] = rest
    return found


def number(key: str, value: str) -> float:
    """The value of a threshold. Raises INVALID_REQUEST."""
    try:
        return float(value)
    except ValueError:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST, f"--threshold {key}={value}: {value!r} is not a number"
        ) from None
