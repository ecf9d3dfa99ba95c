"""The report of a mitigate job in a terminal."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.kinds.mitigate.report import MitigateReport
from app.web import format as fmt
from app.web.sections.front import heading, healthy, left, outcome
from app.web.sections.trials import described, protocol
from app.web.terminal_parts import Say, head, plain_table, small_print, verdict_lines
from app.web.untrusted import visible

# Columns from which the front has all of its numbers beside treatments in words, which take room.
WIDE = 120


def render_mitigate(report: MitigateReport, console: Console, say: Say) -> None:
    """Prints it: what is recommended, the front, the recipe, what did not help, and what is left."""
    wide = console.width >= WIDE
    head(report, console, say)
    console.print()
    well = report.helped or healthy(report)
    console.print(Text(heading(report).upper(), style="bold green" if well else "bold red"))
    console.print(Text(say(visible(report.verdict))))
    console.print(Text(say(outcome(report))))
    if report.saved is not None:
        saved = fmt.estimate(report.saved.mean, report.saved.ci)
        console.print(Text(say(f"It saves {saved} nats a token there (95 %, paired by position).")))
    console.print()
    console.print(_front(report, say, wide=wide))
    for step in report.recommended or ():
        console.print(Text(say(visible(json.dumps(step, ensure_ascii=False)))))
    if report.unhelpful:
        console.print()
        console.print(_unhelpful(report, say))
    verdict_lines(report, console, say, sentence=left(report))
    console.print()
    console.print(Text(say(protocol(report))))
    small_print(report, console, say)


def _front(report: MitigateReport, say: Say, *, wide: bool) -> Table:
    columns = [("Treatment", False), ("Size", True), ("KL, nats", True), ("95 % interval", True)]
    columns += [("Saved, nats", True), ("95 % interval", True), ("Bits", True)] if wide else []
    columns += [("Tok/s", True)]
    table = plain_table("The front on the test documents, from few bytes to many", columns)
    for point in report.front:
        kl = fmt.estimate(point.kl.mean, point.kl.ci)
        cells = [fmt.size(point.bytes), kl.value, kl.interval or fmt.NONE]
        if wide:
            saved = fmt.Estimate(fmt.NONE, None)
            if point.saved is not None:
                saved = fmt.estimate(point.saved.mean, point.saved.ci)
            cells += [saved.value, saved.interval or fmt.NONE, fmt.number(point.bits_per_weight, 4)]
        cells.append(fmt.count(round(point.tokens_per_second)))
        name = ("> " if point.recommended else "  ") + described(point)
        table.add_row(Text(say(name), style="bold" if point.recommended else ""), *map(say, cells))
    return table


def _unhelpful(report: MitigateReport, say: Say) -> Table:
    table = plain_table("What did not help, or is not in the recipe", [("Treatment", False), ("Why", False)])
    for one in report.unhelpful:
        table.add_row(one.treatment, Text(say(visible(one.reason))))
    return table
