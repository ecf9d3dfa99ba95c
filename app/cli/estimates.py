"""The answer to a dry run, printed."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.table import Table

from app.cli.output import out, print_json


def print_estimate(estimate: dict[str, Any], *, as_json: bool) -> None:
    """What the job would take, and what that rests on."""
    if as_json:
        print_json(estimate)
        return
    table = Table(title="Estimate (nothing was run)", show_header=False)
    for name in ("documents", "tokens", "reference_store_bytes", "checkpoint_bytes", "seconds"):
        value = estimate[name]
        table.add_row(name.replace("_", " "), "not known before it is read" if value is None else f"{value:,.0f}")
    out.print(table)
    for assumption in estimate["assumptions"]:
        out.print(f"  [dim]{escape(assumption)}[/]")
