"""Generated tool calls of a compare report in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from app.kinds.compare.report import CompareReport
from app.web import format as fmt
from app.web.sections.tool_calls import NAMES, pairs, plus, sentence
from app.web.terminal_parts import Say, plain_table


def print_tool_calls(report: CompareReport, console: Console, say: Say) -> None:
    """Shares of both models and their difference; nothing where no call was generated."""
    found = report.tool_calls
    if found is None:
        return
    columns = [("Generated tool calls", False), ("Reference, %", True), ("Candidate, %", True)]
    columns += [("Difference, points", True), ("p", True)]
    table = plain_table("Generated tool calls", columns)
    for name, pair in pairs(found):
        shares = [fmt.estimate(part.share, part.ci, percent=True).value for part in (pair.reference, pair.candidate)]
        gap = f"{plus(pair.difference)}{fmt.estimate(pair.difference, pair.ci, percent=True)}"
        table.add_row(Text(say(NAMES[name])), *map(say, [*shares, gap, fmt.number(pair.p_value, 2)]))
    console.print(table)
    console.print(Text(say(sentence(found))))
