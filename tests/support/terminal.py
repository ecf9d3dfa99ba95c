"""What a terminal shows of a report."""

import io
from typing import Any

from rich.console import Console

from app.reports.terminal import render_terminal


def printed(report: dict[str, Any], width: int = 100, encoding: str = "utf-8", *, details: bool = False) -> str:
    """The report as text, without colours, in a terminal of so many columns."""
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding=encoding)
    render_terminal(report, Console(file=stream, width=width, no_color=True, force_terminal=False), details=details)
    stream.flush()
    return buffer.getvalue().decode(encoding)
