"""The report of a tasks job in a terminal."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.kinds.tasks.report import TasksReport
from app.models.tasks.power import level_told
from app.web import format as fmt
from app.web.sections.tasks_classes import class_sentence
from app.web.sections.tasks_words import OUTCOMES, detectable, heading, left, outcome, points, score
from app.web.terminal_parts import WIDE, Say, head, plain_table, small_print, verdict_lines
from app.web.untrusted import visible

# A terminal of so many columns has room for the tests' p-values, too.
_WITH_TESTS: Final = 120
_STYLES = {"Worse": "bold red", "Equivalent": "bold green", "Better": "bold green"}


def render_tasks(report: TasksReport, console: Console, say: Say) -> None:
    """Prints it: what is shown, the tasks, what KL made one expect, and the divergence beside."""
    head(report, console, say)
    console.print()
    name = heading(report)
    console.print(Text(name.upper(), style=_STYLES.get(name, "bold yellow")))
    console.print(Text(say(visible(report.verdict))))
    if len(report.results) + len(report.unscored) > 1:
        console.print(Text(say(outcome(report))))
    console.print()
    console.print(_tasks(report, say, width=console.width))
    for result in report.results:
        if len(report.results) > 1:
            console.print(Text(say(visible(result.sentence))))
        console.print(Text(say(visible(f"{result.name}: {result.prediction.sentence}"))))
        least = result.detectable.difference
        could = "are too few to show any difference"
        if least is not None:
            could = f"could show a difference from {detectable(least)} points on"
        rate = f"{result.detectable.source} flip rate of {100 * result.detectable.flip_rate:.2g} %"
        at = f"at the {rate} and the {level_told(result.detectable.level)}"
        found = result.detectable.at_measured_rate
        then = "" if found is None else f"; at the rate that was found, from {detectable(found)} points on"
        console.print(
            Text(say(visible(f"{result.name}: {fmt.count(result.items)} items {could} with 80 % power, {at}{then}.")))
        )
    console.print(Text(say(class_sentence(report))))
    verdict_lines(report, console, say, sentence=left(report))
    console.print()
    small_print(report, console, say)


def _tasks(report: TasksReport, say: Say, *, width: int) -> Table:
    wide, with_tests = width >= WIDE, width >= _WITH_TESTS
    columns = [("Task", False), ("Items", True), ("Ref, %", True), ("Cand, %", True), ("Diff, points", True)]
    columns += [("95 % interval", True), ("To wrong/right", True)] if wide else [("Flips", True)]
    columns += [("McNemar p", True), ("TOST p", True)] if with_tests else []
    columns += [("Outcome", False)]
    corrected = " (p-values: Holm over tasks)" if with_tests else ""
    table = plain_table(f"Both models on the same items{corrected}", columns)
    table.columns[-1].no_wrap = True  # room is taken from the names of the tasks
    for result in report.results:
        difference = points(result.difference)
        cells = [
            fmt.count(result.items),
            score(result.reference.mean),
            score(result.candidate.mean),
            difference.value,
        ]
        if wide:
            flips = f"{fmt.count(result.flips.harmful)} / {fmt.count(result.flips.helpful)}"
            cells += [difference.interval or fmt.NONE, flips]
        else:
            cells.append(fmt.count(result.flips.harmful + result.flips.helpful))
        if with_tests:
            cells += [fmt.number(result.mcnemar.p_holm, 2), fmt.number(result.equivalence.p_holm, 2)]
        cells.append(OUTCOMES[result.outcome])
        style = "bold" if result.outcome == "worse" else ""
        table.add_row(Text(say(visible(result.name)), style=style), *map(say, cells))
    return table
