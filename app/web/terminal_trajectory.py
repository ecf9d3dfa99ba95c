"""The report of a trajectory job in a terminal."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.contracts.trajectory_report import TrajectoryReport
from app.web import format as fmt
from app.web.sections.trajectory import (
    CONCLUSIONS,
    factor,
    first_cells,
    heading,
    left,
    median_of,
    note,
    row_name,
    shaping_name,
    title_of,
)
from app.web.terminal import WIDE, head, plain_table, small_print, verdict_lines
from app.web.untrusted import visible

Say = Callable[[str], str]


def render_trajectory(report: TrajectoryReport, console: Console, say: Say) -> None:
    """Prints it: what decoding does to the damage, the decoders, where texts part, distances after the cut."""
    wide = console.width >= WIDE
    head(report, console, say)
    console.print()
    bad = first_cells(report)[0].amplification.conclusion == "amplifies"
    console.print(Text(heading(report).upper(), style="bold red" if bad else "bold"))
    console.print(Text(say(visible(report.verdict))))
    console.print(Text(say(note(report)), style="dim"))
    if len(report.candidates) > 1:
        console.print()
        for index, run in enumerate(report.candidates):
            excess = fmt.estimate(run.excess_kl.mean, run.excess_kl.ci)
            console.print(Text(say(f"{title_of(report, index)}: {run.severity}, excess KL {excess} nats a token")))
    console.print()
    console.print(_decoders(report, say, wide=wide))
    if wide:
        console.print(_texts(report, say))
    if report.distances:
        console.print(_distances(report, say))
    verdict_lines(report, console, say, sentence=left(report))
    small_print(report, console, say)


def _decoders(report: TrajectoryReport, say: Say, *, wide: bool) -> Table:
    columns = [("Decoder", False), ("Parts at", True), ("KL on p’s text", True), ("on its own", True)]
    columns += [("KL factor", True), ("95 % interval", True), ("Decoding", False)] if wide else [("KL factor", True)]
    table = plain_table("Decoder by decoder: median first different token, KL in nats a token", columns)
    for cell in report.cells:
        median, _ = median_of(cell)
        grown = factor(cell.amplification.kl)
        cells = [median, fmt.number(cell.kl_reference_text.mean), fmt.number(cell.kl_candidate_text.mean), grown.value]
        if wide:
            cells += [grown.interval or fmt.NONE, CONCLUSIONS[cell.amplification.conclusion]]
        table.add_row(Text(say(row_name(report, cell))), *map(say, cells))
    return table


def _texts(report: TrajectoryReport, say: Say) -> Table:
    columns = [
        ("Decoder", False),
        ("Shared prefix", True),
        ("Edits, %", True),
        ("Length", True),
        ("Repeated 4-grams", True),
    ]
    table = plain_table("Texts: tokens shared, edit distance of the whole, change of length and of repetition", columns)
    for cell in report.cells:
        edits = cell.edit_distance[-1].distance if cell.edit_distance else None
        shared = cell.first_divergence.shared_prefix
        repeated = cell.change.repetition.get("4")
        table.add_row(
            Text(say(row_name(report, cell))),
            say(str(fmt.estimate(shared.mean, shared.ci))),
            say(fmt.NONE if edits is None else str(fmt.estimate(edits.mean, edits.ci, percent=True))),
            say(fmt.signed(cell.change.length.mean)),
            say(fmt.NONE if repeated is None else fmt.signed(repeated.mean)),
        )
    return table


def _distances(report: TrajectoryReport, say: Say) -> Table:
    columns = [("After", False), ("KL, nats", True), ("Infinite, %", True), ("TV", True), ("95 % interval", True)]
    table = plain_table("Distances after a decoder’s cut, on the reference’s texts", columns)
    for one in report.distances:
        name = shaping_name(one) + (f", {'ABCD'[one.candidate]}" if len(report.candidates) > 1 else "")
        tv = fmt.estimate(one.tv.mean, one.tv.ci)
        infinite = fmt.estimate(one.infinite.mean, one.infinite.ci, percent=True)
        cells = [fmt.number(one.kl.mean), infinite.value, tv.value, tv.interval or fmt.NONE]
        table.add_row(Text(say(name)), *map(say, cells))
    return table
