"""`hemostat errors`: what an error code means. No service is needed."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from app.cli.options import AsJson
from app.cli.output import out, print_json
from app.contracts.errors import ErrorCode
from app.error_guide import explained


def errors(
    code: Annotated[str | None, typer.Argument(help="The code of an error. Default: list every code.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Explain an error code: what it means and what to do."""
    found = [explained(one) for one in ([code] if code else ErrorCode)]
    if as_json:
        print_json(found[0] if code else found)
    elif code:
        out.print(f"[bold]{code}[/]: {found[0]['title']}.", soft_wrap=True)
        out.print(f"[bold]what to do:[/] {found[0]['hint']}", soft_wrap=True)
    else:
        table = Table("code", "meaning", box=None, header_style="bold", pad_edge=False)
        for one in found:
            table.add_row(one["code"], one["title"])
        out.print(table)
