"""The kinds of token of a compare report in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from app.contracts.report import TokenClassSlice
from app.kinds.compare.report import CompareReport
from app.web import format as fmt
from app.web.sections.classes import adjusted_over, p_value, sentence
from app.web.sections.slices import over_windows
from app.web.terminal_parts import Say, plain_table, print_over_windows, starred
from app.web.untrusted import visible


def print_classes(report: CompareReport, console: Console, say: Say, *, wide: bool) -> None:
    """The table of classes, the most damaged first, and which differ from the rest; nothing for an older report.

    Where it is `wide` a second table has the means of the other metrics."""
    found = report.token_classes
    if found is None or not found.classes:
        return
    columns = [("Kind of token", False), ("Tokens", True), ("KL, nats", True), ("95 % interval", True)]
    columns += [("Against the rest", True)] if wide else []
    columns += [("Top-1, %", True), ("PPL ratio", True)]
    table = plain_table("By kind of token", columns)
    ordered = sorted(found.classes, key=lambda one: -(one.kl.mean or 0.0))
    for one in ordered:
        kl = fmt.estimate(one.kl.mean, one.kl.ci)
        top1 = fmt.estimate(one.top1_agreement.mean, one.top1_agreement.ci, percent=True)
        ratio = fmt.estimate(one.perplexity_ratio.mean, one.perplexity_ratio.ci)
        cells = [fmt.count(one.tokens), kl.value, kl.interval or fmt.NONE]
        if wide:
            gap = None if one.difference is None else one.difference.mean
            cells.append(fmt.NONE if gap is None else f"{fmt.signed(gap)}, {p_value(one.p_value)}")
        shown = starred(one.title, over_windows(one.kl, report))
        table.add_row(Text(say(shown)), *map(say, [*cells, top1.value, ratio.value]))
    console.print(table)
    print_over_windows({one.title: one.documents for one in ordered if over_windows(one.kl, report)}, console, say)
    if wide:
        _print_further(ordered, console, say)
    console.print(Text(say(f"{sentence(found.classes)} {adjusted_over(found.classes)}")))


def _print_further(ordered: Sequence[TokenClassSlice], console: Console, say: Say) -> None:
    columns = ("KL(q‖p)", "JS", "TV", "RMS Δp", "Top-5", "Top-10", "Rank", "H(p)", "H(q)")
    table = plain_table(
        "By kind of token, means; overlap in %", [("Kind of token", False), *((say(name), True) for name in columns)]
    )
    for one in ordered:
        if not (one.delta_p and one.agreement and one.entropy):
            continue
        ranks, entropy = one.agreement, one.entropy
        cells = [
            *map(fmt.number, (one.reverse_kl.mean, one.js.mean, one.tv.mean, one.delta_p.rms)),
            *(fmt.estimate(mean.mean, None, percent=True).value for mean in (ranks.top5_overlap, ranks.top10_overlap)),
            *map(fmt.number, (ranks.expected_rank.mean, entropy.reference.mean, entropy.candidate.mean)),
        ]
        table.add_row(Text(say(visible(one.title))), *map(say, cells))
    if table.row_count:
        console.print(table)
