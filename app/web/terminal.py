"""The verdict in a terminal: text and tables that say everything without colour, at 80 columns and at 120."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.contracts.report import SEVERITIES, CompareReport, Distribution, Mean, Provenance
from app.contracts.reports import AnyReport
from app.contracts.surface_report import SurfaceReport
from app.contracts.sweep_report import SweepReport
from app.contracts.trajectory_report import TrajectoryReport
from app.web import describe
from app.web import format as fmt
from app.web.reading import parse
from app.web.scales import LogScale
from app.web.sections.origin import scored_text, window
from app.web.sections.slices import OVER_WINDOWS, over_windows
from app.web.sections.surface_words import told_of
from app.web.sections.sweep_words import furthest
from app.web.sections.verdict import detectable, edges, heading, margin, named, nonfinite, rank, to_decide
from app.web.untrusted import visible

WIDE = 100
_STYLES = {"none": "green", "mild": "yellow", "moderate": "yellow", "severe": "red", "collapse": "red"}
_ASCII = str.maketrans(
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
Say = Callable[[str], str]
# Kinds that are shown otherwise than a comparison: imported where they are shown, since each imports this module.
_OWN = {
    "attribute": "terminal_attribute:render_attribute",
    "calibrate": "terminal_calibration:render_calibration",
    "mitigate": "terminal_mitigate:render_mitigate",
    "surface": "terminal_surface:render_surface",
    "sweep": "terminal_sweep:render_sweep",
    "tasks": "terminal_tasks:render_tasks",
    "trajectory": "terminal_trajectory:render_trajectory",
}


def render_terminal(report: dict[str, Any], console: Console) -> None:
    """Prints a report of any kind. Raises `HemostatError(INVALID_REQUEST)` where it is none."""
    data = parse(report)
    say: Say = _ascii if console.options.ascii_only else str
    if not isinstance(data, CompareReport):
        module, _, function = _OWN[data.kind].partition(":")
        getattr(import_module(f"app.web.{module}"), function)(data, console, say)
        return
    from app.web.terminal_classes import print_classes
    from app.web.terminal_tool_calls import print_tool_calls

    head(data, console, say)
    verdict_lines(data, console, say)
    console.print()
    console.print(_numbers(data, say, wide=console.width >= WIDE))
    if data.domains:
        console.print(_domains(data, say, wide=console.width >= WIDE))
        few = {name: one.documents for name, one in data.domains.items() if over_windows(one.divergence.kl, data)}
        print_over_windows(few, console, say)
    print_tool_calls(data, console, say)
    print_classes(data, console, say, wide=console.width >= WIDE)
    small_print(data, console, say)


def _ascii(text: str) -> str:
    """For terminals that take nothing else: signs of ours spelled out, other characters as a question mark."""
    return text.translate(_ASCII).encode("ascii", "replace").decode()


def _print(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style))


def head(report: AnyReport, console: Console, say: Say) -> None:
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
                f"{fmt.counted(report.documents, 'document')}, {_read_at_once(report)}"
            )
        ),
    )
    console.print(grid)


def _read_at_once(report: AnyReport) -> str:
    if isinstance(report, TrajectoryReport):
        return f"texts of {window(report)}"
    return f"windows of {fmt.count(report.provenance.protocol.window)}"


def verdict_lines(report: AnyReport, console: Console, say: Say, *, sentence: str = "") -> None:
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
    if report.decision.excess_kl.mean is not None:
        for line in gauge(report, report.decision.excess_kl.mean, min(console.width, WIDE) - 2):
            console.print(Text(say(line), no_wrap=True))
    for alert in filter(None, (nonfinite(report), *(visible(warning) for warning in report.warnings))):
        console.print()
        console.print(Text.assemble(("Warning: ", "bold"), say(alert)))


def gauge(report: AnyReport, mean: float, width: int) -> tuple[str, str, str]:
    """Three lines of `width` characters: class names, an axis with the excess and its interval, the thresholds.

    The axis is logarithmic from a quarter of the first threshold to three times the last; what lies outside stands at
    its ends.
    """
    limits = edges(report)
    scale = LogScale(limits[0] / 4, limits[-1] * 3)

    def column(value: float) -> int:
        return min(width - 1, max(0, round(scale.at(value) / 100 * (width - 1))))

    bounds = [0, *(column(edge) for edge in limits), width]
    names, axis, labels = [" "] * width, ["─"] * width, [" "] * width
    for name, left, right in zip(SEVERITIES, bounds, bounds[1:], strict=False):
        shown = name.upper() if name in named(report) else name
        _write(names, shown, left + max(0, (right - left - len(shown) + 1) // 2))
    for edge in limits:
        axis[column(edge)] = "┼"
        label = fmt.short(edge)
        _write(labels, label, column(edge) - len(label) // 2)
    ci = report.decision.excess_kl.ci
    if ci:
        low, high = column(ci[0]), column(ci[1])
        for place in range(low, high + 1):
            axis[place] = "═"
        axis[low], axis[high] = "├", "┤"
    axis[column(mean)] = "●" if mean >= scale.low else "◂"
    return "".join(names), "".join(axis), "".join(labels)


def _write(line: list[str], text: str, start: int) -> None:
    start = min(max(0, start), max(0, len(line) - len(text)))
    line[start : start + len(text)] = text[: len(line)]


def capitals(text: str, names: Iterable[str] = ()) -> str:
    """A heading in capitals, but for `names` in it: who copies one from here needs it as it is."""
    longest_first = sorted({name for name in names if name}, key=len, reverse=True)
    if not longest_first:
        return text.upper()
    kept = "|".join(map(re.escape, longest_first))
    parts = re.split(rf"(?<![\w.])({kept})(?![\w.]*\w)", text)
    return "".join(part if index % 2 else part.upper() for index, part in enumerate(parts))


def plain_table(title: str, columns: Iterable[tuple[str, bool]]) -> Table:
    """An empty table; columns are (heading, whether it holds numbers)."""
    table = Table(title=Text(title, style="bold"), box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for name, is_number in columns:
        table.add_column(name, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    return table


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
        table.add_row(name, say(fmt.number(value, 5)), "", *[""] * rest)
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


def starred(name: str, mark: bool) -> str:
    """A part's name in a table, with the mark that `print_over_windows` explains."""
    return f"{visible(name)} *" if mark else visible(name)


def print_over_windows(documents: Mapping[str, int], console: Console, say: Say) -> None:
    """Which parts have intervals of another kind than the whole, by how many documents each has; nothing for none."""
    if documents:
        told = (f"{visible(name)} {count} document{'' if count == 1 else 's'}" for name, count in documents.items())
        _print(console, say(f"* {OVER_WINDOWS}: {', '.join(told)}"))


def small_print(report: AnyReport, console: Console, say: Say) -> None:
    """Noise floor, rule, limits and origin."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    floor = report.noise_floor.kl
    floor_text = "exactly 0" if floor.mean == 0 == floor.max else f"{fmt.number(floor.mean)} nats a token"
    grid.add_row("noise floor", say(floor_text))
    at = visible(furthest(report)) if isinstance(report, SweepReport) else ""
    at = told_of(report) if isinstance(report, SurfaceReport) else at
    grid.add_row("detectable", say(f"{f'At the {at}: ' if at else ''}{detectable(report)}"))
    grid.add_row("rule", Text(say(visible(report.decision.rule))))
    for index, item in enumerate(report.not_tested):
        grid.add_row("not tested" if index == 0 else "", Text(say(visible(item))))
    origin = report.provenance
    grid.add_row("engine", Text(say(visible(f"{origin.engine}, {origin.device}, {origin.dtype}"))))
    grid.add_row("measuring took", say(fmt.duration(_spent(origin))))
    grid.add_row("job", Text(say(visible(report.job))))
    console.print(grid)


def _spent(origin: Provenance) -> float:
    """Seconds of all phases, as the page adds them up; from start to end where no phase was timed."""
    return sum(origin.seconds.values()) if origin.seconds else max(0.0, origin.finished_at - origin.started_at)
