"""The verdict in a terminal: text and tables that say everything without colour, at 80 columns and at 120."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Console

from app.kinds.mitigate.report import MitigateReport
from app.kinds.registry import KINDS
from app.reports.terminal import print_blocks
from app.web.reading import parse
from app.web.terminal_mitigate import render_mitigate
from app.web.terminal_parts import Say

_ASCII: Final = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "·": "-",
        "×": "x",
        "‖": "||",
        "’": "'",
        "→": "->",
        "…": "...",
        "⟨": "<",
        "⟩": ">",
        "Δ": "d",
        "│": "|",
        "─": "-",
        "├": "[",
        "┤": "]",
        "┼": "+",
        "●": "o",
        "═": "=",
    }
    | {character: "-0123456789"[index] for index, character in enumerate("⁻⁰¹²³⁴⁵⁶⁷⁸⁹")}
)


def render_terminal(report: dict[str, Any], console: Console, *, details: bool = False) -> None:
    """Prints the main results of a report of any kind; with `details` all of them.

    Raises `HemostatError(INVALID_REQUEST)` if it is no report.
    """
    say: Say = _ascii if console.options.ascii_only else str
    match parse(report):
        case MitigateReport() as found:
            render_mitigate(found, console, say)
        case found:
            print_blocks(KINDS[found.kind].call("view", found), console, say, details=details)


def _ascii(text: str) -> str:
    """For terminals that take nothing else: signs of ours spelled out, other characters as a question mark."""
    return text.translate(_ASCII).encode("ascii", "replace").decode()
