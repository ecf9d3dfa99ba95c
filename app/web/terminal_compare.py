"""A comparison in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.contracts.report import Distribution, Mean
from app.kinds.compare.report import CompareReport
from app.web import format as fmt
from app.web.sections.slices import over_windows
from app.web.terminal_classes import print_classes
from app.web.terminal_parts import WIDE, Say, head, plain_table, print_over_windows, small_print, starred, verdict_lines
from app.web.terminal_tool_calls import print_tool_calls
from app.web.untrusted import visible


def render_compare(report: CompareReport, console: Console, say: Say) -> None:
    """Prints it."""
    head(report, console, say)
    verdict_lines(report, console, say)
    console.print()
    console.print(_numbers(report, say, wide=console.width >= WIDE))
    if report.domains:
        console.print(_domains(report, say, wide=console.width >= WIDE))
        few = {name: one.documents for name, one in report.domains.items() if over_windows(one.divergence.kl, report)}
        print_over_windows(few, console, say)
    print_tool_calls(report, console, say)
    print_classes(report, console, say, wide=console.width >= WIDE)
    small_print(report, console, say)


def _numbers(report: CompareReport, say: Say, *, wide: bool) -> Table:
    columns = [("", False), ("Mean", True), ("95 % interval", True)]
    columns += [("Median", True), ("p99", True), ("Max", True)] if wide else [("p99", True)]
    table = plain_table("Key numbers", columns)
    rest = len(columns) - 3

    def tail(block: Distribution) -> list[str]:
        values = (block.median, block.p99, block.max) if wide else (block.p99,)
        return [say(fmt.number(value)) for value in values]

    def add(name: str, mean: Mean, *, percent: bool = False) -> None:
        text = fmt.estimate(mean.mean, mean.ci, percent=percent)
        cells = tail(mean) if isinstance(mean, Distribution) else [""] * rest
        table.add_row(say(name), say(text.value), say(text.interval or fmt.NONE), *cells)

    divergence, agreement = report.divergence, report.agreement
    add("Excess KL over the floor, nats", report.decision.excess_kl)
    add("KL(p‖q), nats", divergence.kl)
    add("KL(q‖p), nats", divergence.reverse_kl)
    add("JS, nats", divergence.js)
    add("TV, probability", divergence.tv)
    if report.kernel_term is not None:
        add(f"Kernel term of {visible(report.kernel_term.scheme)}, nats", report.kernel_term.kl)
    add("Top-1 agreement, %", agreement.top1, percent=True)
    add("Top-5 overlap, %", agreement.top5_overlap, percent=True)
    add("Top-10 overlap, %", agreement.top10_overlap, percent=True)
    add("Expected rank of p’s first", agreement.expected_rank)
    add("Perplexity ratio q/p", report.perplexity.ratio)
    for name, value in (
        ("Perplexity of p", report.perplexity.reference),
        ("Perplexity of q", report.perplexity.candidate),
    ):
        table.add_row(name, say(fmt.number(value, 5)), "see the ratio", *[""] * rest)
    add("Entropy of p, nats", report.entropy.reference)
    add("Entropy of q, nats", report.entropy.candidate)
    return table


def _domains(report: CompareReport, say: Say, *, wide: bool) -> Table:
    columns = [("Domain", False), ("Tokens", True), ("KL, nats", True), ("95 % interval", True)]
    columns += [("p99", True)] if wide else []
    columns += [("Top-1, %", True), ("PPL ratio", True)]
    table = plain_table("By domain", columns)
    for name, block in sorted(report.domains.items(), key=lambda item: -(item[1].divergence.kl.mean or 0.0)):
        kl = block.divergence.kl
        text = fmt.estimate(kl.mean, kl.ci)
        top1 = fmt.estimate(block.top1_agreement.mean, block.top1_agreement.ci, percent=True)
        ratio = fmt.estimate(block.perplexity.ratio.mean, block.perplexity.ratio.ci)
        cells = [fmt.count(block.tokens), text.value, text.interval or fmt.NONE]
        cells += [fmt.number(kl.p99)] if wide else []
        shown = starred(name, over_windows(kl, report))
        table.add_row(Text(say(shown)), *map(say, [*cells, top1.value, ratio.value]))
    return table
