"""What reports of all kinds have alike in a terminal: head, verdict, tables, small print."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.contracts.report import Provenance, Report
from app.reports.blocks import Gauge
from app.reports.terminal import drawn
from app.web import describe
from app.web import format as fmt
from app.web.sections.classes import OVER_WINDOWS
from app.web.sections.origin import scored_text
from app.web.sections.verdict import detectable, edges, heading, margin, named, nonfinite, rank, to_decide
from app.web.untrusted import visible

# Columns from which tables have all that they can tell.
WIDE = 100
_STYLES = {"none": "green", "mild": "yellow", "moderate": "yellow", "severe": "red", "collapse": "red"}
Say = Callable[[str], str]


def head(report: Report, console: Console, say: Say) -> None:
    """Which models, over which text."""
    origin = report.provenance
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("candidate", Text(say(visible(describe.model(origin.candidate))), style="bold"))
    grid.add_row("reference", Text(say(visible(describe.model(origin.reference)))))
    grid.add_row(
        "text",
        Text(
            say(
                f"{scored_text(report)}: {fmt.count(report.tokens)} scored tokens, "
                f"{fmt.counted(report.documents, 'document')}, "
                f"windows of {fmt.count(report.provenance.protocol.window)}"
            )
        ),
    )
    console.print(grid)


def verdict_lines(report: Report, console: Console, say: Say, *, sentence: str = "") -> None:
    """The class, its sentence, and where it stands among the thresholds."""
    sure = "conclusive" if report.decision.conclusive else "inconclusive"
    console.print()
    console.print(
        Text.assemble(
            (heading(report).upper(), f"bold {_STYLES[report.severity]}"), f"  {rank(report)}, {sure}", overflow="fold"
        )
    )
    _print(console, say(sentence or visible(report.verdict)))
    for line in filter(None, (margin(report), to_decide(report))):
        _print(console, say(line))
    console.print()
    excess = report.decision.excess_kl
    if excess.mean is not None:
        for line in drawn(Gauge(excess.mean, excess.ci, edges(report)), named(report), min(console.width, WIDE) - 2):
            console.print(Text(say(line), no_wrap=True))
    for alert in filter(None, (nonfinite(report), *(visible(warning) for warning in report.warnings))):
        console.print()
        console.print(Text.assemble(("Warning: ", "bold"), say(alert)))


def plain_table(title: str, columns: Iterable[tuple[str, bool]]) -> Table:
    """An empty table; columns are (heading, whether it holds numbers)."""
    table = Table(title=Text(title, style="bold"), box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for name, is_number in columns:
        table.add_column(name, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    return table


def starred(name: str, mark: bool) -> str:
    """A part's name in a table, with the mark that `print_over_windows` explains."""
    return f"{visible(name)} *" if mark else visible(name)


def print_over_windows(documents: Mapping[str, int], console: Console, say: Say) -> None:
    """Which parts have intervals of another kind than the whole, by how many documents each has; nothing for none."""
    if documents:
        told = (f"{visible(name)} {count} document{'' if count == 1 else 's'}" for name, count in documents.items())
        _print(console, say(f"* {OVER_WINDOWS}: {', '.join(told)}"))
        console.print()


def small_print(report: Report, console: Console, say: Say) -> None:
    """Noise floor, rule, limits and origin."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    floor = report.noise_floor.kl
    floor_text = "exactly 0" if floor.mean == 0 == floor.max else f"{fmt.number(floor.mean)} nats a token"
    grid.add_row("noise floor", say(floor_text))
    grid.add_row("detectable", say(detectable(report)))
    grid.add_row("rule", Text(say(visible(report.decision.rule))))
    for index, one in enumerate(report.not_tested):
        grid.add_row("not tested" if index == 0 else "", Text(say(visible(one.text))))
    origin = report.provenance
    grid.add_row("engine", Text(say(visible("; ".join(describe.engine(origin))))))
    grid.add_row("measuring took", say(fmt.duration(_spent(origin))))
    grid.add_row("job", Text(say(visible(report.job))))
    console.print(grid)


def _spent(origin: Provenance) -> float:
    """Seconds of all phases, as the page adds them up; from start to end where no phase was timed."""
    return sum(origin.seconds.values()) if origin.seconds else max(0.0, origin.finished_at - origin.started_at)


def _print(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style))
