"""Jobs as a table: a line each where there is room, else two, so that eighty columns fold nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from app.web import listing

_HEADINGS: Final = ("id", "kind", "status", "created")
_MORE: Final = ("outcome", "candidate", "text")
_ROOM: Final = 160  # columns that take a job of middling length on one line
_INDENT: Final = 4


def print_jobs(jobs: Sequence[dict[str, Any]], console: Console) -> None:
    """Prints them in the given order."""
    wide = console.width >= _ROOM
    rows = [(_line(job), (listing.outcome(job), listing.candidate(job), listing.text(job))) for job in jobs]
    if wide:
        table = Table(box=None, header_style="bold")
        for heading in (*_HEADINGS, *_MORE):
            table.add_column(heading, overflow="fold", no_wrap=heading in _HEADINGS)
        for line, more in rows:
            table.add_row(*line, *map(Text, more))
        console.print(table)
        return
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *(line for line, _ in rows), strict=True)]
    console.print(Text(_padded(_HEADINGS, widths), style="bold"))
    console.print(Padding(Text(" | ".join(_MORE), style="bold"), (0, 0, 0, _INDENT)))
    for line, more in rows:
        console.print(Text(_padded(line, widths)))
        console.print(Padding(Text(" | ".join(more), style="dim"), (0, 0, 0, _INDENT)))


def _line(job: dict[str, Any]) -> tuple[str, ...]:
    created = datetime.fromtimestamp(job["created_at"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return job["id"], job["kind"], job["status"], created


def _padded(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()
