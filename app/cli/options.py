"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.commands.finite import require_finite

Url = Annotated[str | None, typer.Option(envvar="HEMOSTAT_URL", help="Address of a running service.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Where the HTML report goes.")]
Download = Annotated[
    bool, typer.Option("--download", help="Fetch a hub id that is not in the local Hugging Face cache.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and estimate the cost; run nothing.")]
Details = Annotated[bool, typer.Option("--details", help="Print everything that the page shows.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output, everything else on standard error.")]


def finite(option: typer.CallbackParam, value: float | None) -> float | None:
    """As `callback` of an option that takes a number. Raises INVALID_REQUEST, which names the option, for NaN and the
    infinities."""
    require_finite(value, option.opts[0])
    return value
