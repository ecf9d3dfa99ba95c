"""The report of a calibrate job in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.contracts.profile import Before
from app.kinds.calibrate.report import CalibrateReport
from app.web import format as fmt
from app.web.sections.calibration import flattening, left, named, outcome
from app.web.terminal_parts import WIDE, Say, head, plain_table, print_over_windows, small_print, starred, verdict_lines
from app.web.untrusted import visible


def render_calibration(report: CalibrateReport, console: Console, say: Say) -> None:
    """Prints it: served or not and why, the table, the domains, what else changes, and what is left."""
    wide = console.width >= WIDE
    head(report, console, say)
    console.print()
    style = "bold green" if report.test.passed else "bold red"
    console.print(Text("PROVEN" if report.test.passed else "NOT SERVED", style=style))
    console.print(Text(say(outcome(report))))
    for reason in report.test.reasons:
        console.print(Text(say(f"- {visible(reason)}")))
    console.print()
    console.print(_calibrators(report, say, wide=wide))
    console.print(_domains(report, say, wide=wide))
    print_over_windows(_few(report), console, say)
    console.print(_effects(report, say))
    if flattening(report):
        console.print(Text(say(flattening(report))))
    verdict_lines(report, console, say, sentence=left(report))
    console.print()
    small_print(report, console, say)


def _calibrators(report: CalibrateReport, say: Say, *, wide: bool) -> Table:
    columns = [("Calibrator", False), ("Saved, nats", True), ("95 % interval", True), ("% of raw", True)]
    columns += [("Adds, µs/token", True), ("Size", True)] if wide else []
    table = plain_table("Saved on the fitted domains of the test", columns)
    for row in sorted(report.test.table, key=lambda row: -(row.own.saved.mean or 0.0)):
        text = fmt.estimate(row.own.saved.mean, row.own.saved.ci)
        share = row.own.saved_share
        cells = [text.value, text.interval or fmt.NONE, fmt.NONE if share is None else fmt.number(100 * share, 2)]
        cells += [fmt.number(row.microseconds_per_token, 2), fmt.size(row.bytes)] if wide else []
        name = ("> " if row.chosen else "  ") + named(row.calibrator)
        table.add_row(Text(say(visible(name)), style="bold" if row.chosen else ""), *map(say, cells))
    return table


def _domains(report: CalibrateReport, say: Say, *, wide: bool) -> Table:
    columns = [("Domain", False), ("KL raw", True), ("KL now", True), ("Saved, nats", True)]
    columns += [("95 % interval", True)] if wide else []
    columns += [("% of raw", True)]
    table, few = plain_table("By domain, chosen calibrator", columns), _few(report)
    chosen = next(row for row in report.test.table if row.chosen)
    for name, cell in sorted(chosen.domains.items(), key=lambda item: -(item[1].raw.mean or 0.0)):
        text = fmt.estimate(cell.saved.mean, cell.saved.ci)
        cells = [fmt.number(cell.raw.mean), fmt.number(cell.calibrated.mean), text.value]
        cells += [text.interval or fmt.NONE] if wide else []
        cells += [fmt.NONE if cell.saved_share is None else fmt.number(100 * cell.saved_share, 2)]
        table.add_row(Text(say(starred(name, name in few))), *map(say, cells))
    return table


def _few(report: CalibrateReport) -> dict[str, int]:
    """Documents of the domains that have too few of them for intervals over documents."""
    chosen = next(row for row in report.test.table if row.chosen)
    return {name: cell.documents for name, cell in chosen.domains.items() if cell.saved.clusters == "windows"}


def _effects(report: CalibrateReport, say: Say) -> Table:
    table = plain_table(
        "What else changes", [("", False), ("Reference", True), ("Raw", True), ("Calibrated", True), ("Change", True)]
    )
    effects = report.test.effects
    if effects is not None:
        rows: list[tuple[str, Before, bool]] = [
            ("Top-1 agreement, %", effects.top1_agreement, True),
            ("TV", effects.tv, False),
            ("Entropy, nats", effects.entropy, False),
            ("Loss, nats", effects.loss, False),
        ]
        rows += [
            (f"TV at T={block.sampling.temperature:g}, top-p {block.sampling.top_p:g}", block.tv, False)
            for block in effects.sampled
        ]
        for name, block, percent in rows:
            means = (block.reference, block.raw, block.calibrated, block.change)
            cells = [
                fmt.NONE if mean is None else fmt.estimate(mean.mean, None, percent=percent).value for mean in means
            ]
            table.add_row(say(name), *map(say, cells))
    return table
