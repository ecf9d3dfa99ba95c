"""What a terminal shows of a report."""

import io
from typing import Any

from rich.console import Console

from app.web.terminal import render_terminal


def printed(body: dict[str, Any], width: int = 100) -> str:
    """The report as text, without colours, in a terminal of so many columns."""
    stream = io.StringIO()
    render_terminal(body, Console(file=stream, width=width))
    return stream.getvalue()
