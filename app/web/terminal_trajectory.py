"""The report of a trajectory job in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.contracts.report import Mean
from app.kinds.trajectory.report import TrajectoryReport
from app.web import format as fmt
from app.web.sections.trajectory import heading, left, note
from app.web.sections.trajectory_words import (
    CONCLUSIONS,
    factor,
    first_cells,
    kl_means,
    median_of,
    row_name,
    shaping_name,
    title_of,
)
from app.web.terminal_kinds import print_kinds
from app.web.terminal_parts import WIDE, Say, head, plain_table, small_print, verdict_lines
from app.web.untrusted import visible


def render_trajectory(report: TrajectoryReport, console: Console, say: Say) -> None:
    """Prints it: what decoding does to the damage, the decoders, where texts part, at which kinds of token, distances
    after the cut."""
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
            told = f"{title_of(report, index)}: {run.severity}, excess KL {excess} nats a token"
            top1, ratio = run.blocks.top1_agreement, run.blocks.perplexity.ratio
            told += f", top-1 agreement {fmt.estimate(top1.mean, top1.ci, percent=True)} %"
            told += f", perplexity ratio {fmt.estimate(ratio.mean, ratio.ci)}"
            console.print(Text(say(told)))
    console.print()
    console.print(_decoders(report, say, wide=wide))
    if wide:
        console.print(_kl(report, say))
        console.print(_texts(report, say))
    print_kinds(report, console, say, wide=wide)
    if report.distances:
        console.print(_distances(report, say, wide=wide))
    verdict_lines(report, console, say, sentence=left(report))
    small_print(report, console, say)


def _decoders(report: TrajectoryReport, say: Say, *, wide: bool) -> Table:
    columns = [("Decoder", False), ("Parts at", True)]
    columns += [("95 % interval", True)] if wide else [("KL on p’s text", True), ("on its own", True)]
    columns += [("KL factor", True)]
    columns += [("95 % interval", True), ("Decoding", False)] if wide else []
    title = "median first different token, KL in nats a token; 95 % intervals of the factor"
    if wide:
        title = "median first different token; KL on its own text over KL on the reference’s"
    table = plain_table(f"Decoder by decoder: {title}", columns)
    for cell in report.cells:
        median, interval = median_of(cell)
        grown = factor(cell.amplification.kl)
        if wide:
            conclusion = CONCLUSIONS[cell.amplification.conclusion]
            cells = [median, interval, grown.value, grown.interval or fmt.NONE, conclusion]
        else:
            kl = [fmt.number(mean.mean) for mean in kl_means(cell)]
            cells = [median, *kl, str(grown)]
        table.add_row(Text(say(row_name(report, cell))), *map(say, cells))
    return table


def _kl(report: TrajectoryReport, say: Say) -> Table:
    columns = [("Decoder", False), ("on the reference’s text", True), ("on the candidate’s own", True)]
    title = "KL of the candidate from the reference, nats a token at the tokens that both texts have"
    table = plain_table(f"{title}, with 95 % intervals", columns)
    for cell in report.cells:
        found = [str(fmt.estimate(mean.mean, mean.ci)) for mean in kl_means(cell)]
        table.add_row(Text(say(row_name(report, cell))), *map(say, found))
    return table


def _texts(report: TrajectoryReport, say: Say) -> Table:
    columns = [
        ("Decoder", False),
        ("Shared prefix", True),
        ("Edits, %", True),
        ("Length, tokens", True),
        ("4-grams, points", True),
    ]
    table = plain_table(
        "Texts: tokens shared, edit distance of the whole; change of length and of repeated 4-grams, 95 % intervals",
        columns,
    )
    for cell in report.cells:
        edits = cell.edit_distance[-1].distance if cell.edit_distance else None
        shared = cell.first_divergence.shared_prefix
        repeated = cell.change.repetition.get("4")
        table.add_row(
            Text(say(row_name(report, cell))),
            say(str(fmt.estimate(shared.mean, shared.ci))),
            say(fmt.NONE if edits is None else str(fmt.estimate(edits.mean, edits.ci, percent=True))),
            say(_change(cell.change.length)),
            say(fmt.NONE if repeated is None else _change(repeated, percent=True)),
        )
    return table


def _change(mean: Mean, *, percent: bool = False) -> str:
    """Candidate − reference, with its sign and interval."""
    told = str(fmt.estimate(mean.mean, mean.ci, percent=percent))
    return f"+{told}" if mean.mean is not None and mean.mean > 0 else told


def _distances(report: TrajectoryReport, say: Say, *, wide: bool) -> Table:
    columns = [("After", False), ("KL, nats", True), ("Infinite, %", True), ("TV", True)]
    title = "Distances after a decoder’s cut, on the reference’s texts" + (", with 95 % intervals" if wide else "")
    table = plain_table(title, columns)
    for one in report.distances:
        name = shaping_name(one) + (f", {'ABCD'[one.candidate]}" if len(report.candidates) > 1 else "")
        found = [
            fmt.estimate(mean.mean, mean.ci, percent=percent)
            for mean, percent in ((one.kl, False), (one.infinite, True), (one.tv, False))
        ]
        cells = [str(of) if wide else of.value for of in found]
        table.add_row(Text(say(name)), *map(say, cells))
    return table
