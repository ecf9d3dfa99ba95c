"""Options that several commands share, and how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli.finite import require_finite
from app.contracts.errors import ErrorCode, HemostatError

Url = Annotated[str | None, typer.Option(envvar="HEMOSTAT_URL", help="Address of a running service.")]
Reference = Annotated[str, typer.Option("--reference", "-r", help="Alias of the unmodified model.")]
Candidate = Annotated[
    str | None,
    typer.Option("--candidate", "-c", help="Alias of the modified model. Default: the reference with --recipe."),
]
Recipe = Annotated[
    list[str] | None,
    typer.Option(
        help="One step, repeated for more: quantize.rtn:bits=4,layers=0+1 (+ makes lists), or JSON, or @file.json."
    ),
]
SelfCheck = Annotated[
    bool,
    typer.Option(
        "--self-check", help="Compare the reference with itself: this checks the measurement and satisfies no rule."
    ),
]
SweptRecipe = Annotated[
    list[str], typer.Option(help="One step, repeated for more, as in `hemostat compare`; a knob may be left out.")
]
Text = Annotated[
    str | None,
    typer.Option(
        help="shipped[:DOCUMENTS], self:TOKENS, hub:NAME[:COLUMN], or a file or folder here. Default: the shipped "
        "evaluation text."
    ),
]
Window = Annotated[int, typer.Option(help="Tokens a window.")]
Thresholds = Annotated[
    list[str] | None, typer.Option("--threshold", help="CLASS=NATS, for example severe=0.3; repeated for more.")
]
Metadata = Annotated[list[str] | None, typer.Option("--metadata", help="key=value; repeated for more.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Where the HTML report goes.")]
AllowOverlap = Annotated[
    bool,
    typer.Option(
        "--allow-overlap", help="Let recipe steps look at documents that are scored: the result then flatters them."
    ),
]
Download = Annotated[
    bool, typer.Option("--download", help="Fetch a hub id that is not in the local Hugging Face cache.")
]
DryRun = Annotated[bool, typer.Option(help="Check everything and estimate the cost; run nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output, everything else on standard error.")]


def finite(option: typer.CallbackParam, value: float | None) -> float | None:
    """As `callback` of an option that takes a number. Raises INVALID_REQUEST, which names the option, for NaN and the
    infinities."""
    require_finite(value, option.opts[0])
    return value


def pairs(values: list[str] | None, option: str) -> dict[str, str]:
    """`key=value`, each given once. Raises INVALID_REQUEST."""
    found: dict[str, str] = {}
    for value in values or []:
        key, equals, rest = value.partition("=")
        if not equals:
            raise HemostatError(ErrorCode.INVALID_REQUEST, f"{option} {value!r} is not KEY=VALUE")
        if key in found:
            raise HemostatError(
                ErrorCode.INVALID_REQUEST,
                f"{option} {key} is given twice: {found[key]} and {rest}",
                hint=f"give each {option} once",
            )
        found[key] = rest
    return found


def number(key: str, value: str, option: str = "--threshold") -> float:
    """The value of a threshold, or of another option that is written KEY=VALUE. Raises INVALID_REQUEST."""
    try:
        found = float(value)
    except ValueError:
        raise HemostatError(ErrorCode.INVALID_REQUEST, f"{option} {key}={value}: {value!r} is not a number") from None
    require_finite(found, f"{option} {key}={value}")
    return found
