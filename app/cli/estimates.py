"""The answer to a dry run, printed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from rich.markup import escape
from rich.table import Table

from app.cli.output import out, print_json
from app.web import format as fmt

# A field of the answer, what it is called, and in which unit a person reads it; JSON has the bare numbers.
_ROWS: Final[tuple[tuple[str, str, Callable[[float], str]], ...]] = (
    ("documents", "documents", "{:,.0f}".format),
    ("tokens", "tokens", "{:,.0f}".format),
    ("reference_store_bytes", "reference store", lambda value: fmt.size(round(value))),
    ("checkpoint_bytes", "checkpoints", lambda value: fmt.size(round(value))),
    ("seconds", "time", fmt.duration),
)


def print_estimate(estimate: dict[str, Any], *, as_json: bool) -> None:
    """What the job would take, and what that rests on."""
    if as_json:
        print_json(estimate)
        return
    table = Table(title="Estimate (nothing was run)", show_header=False)
    for name, label, shown in _ROWS:
        value = estimate[name]
        table.add_row(label, "not known before it is read" if value is None else shown(value))
    out.print(table)
    for assumption in estimate["assumptions"]:
        out.print(f"  [dim]{escape(assumption)}[/]")
