"""The verdict in a terminal: text and tables that say everything without colour, at 80 columns and at 120."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Console

from app.reports.terminal import Say, print_blocks
from app.web.report import blocks_of

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
    print_blocks(blocks_of(report), console, say_on(console), details=details)


def say_on(console: Console) -> Say:
    """What turns a text into one that the terminal's encoding has."""
    return _ascii if console.options.ascii_only else str


def _ascii(text: str) -> str:
    """For terminals that take nothing else: signs of ours spelled out, other characters as a question mark."""
    return text.translate(_ASCII).encode("ascii", "replace").decode()
