"""`hemostat schema`: the JSON Schema of a report, or of all kinds of reports. No service is needed."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.output import print_json
from app.kinds.registry import KINDS
from app.web.schema import report_schema


def schema(
    kind: Annotated[str | None, typer.Argument(help=f"One of {', '.join(KINDS)}. Default: all, by kind.")] = None,
) -> None:
    """Print the JSON Schema (Draft 2020-12) of the reports of a kind of job."""
    if kind is None:
        print_json({name: report_schema(name) for name in KINDS})
        return
    if kind not in KINDS:
        raise typer.BadParameter(f"There is no kind {kind!r}. Give one of {', '.join(KINDS)}.")
    print_json(report_schema(kind))
