"""Blocks in a terminal: text and tables that say everything without colour.

By default only what a block marks as brief: at most 40 lines of 80 characters. With `details` everything but pictures.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from app.contracts.report import SEVERITIES
from app.reports import format as fmt
from app.reports.blocks import (
    Block,
    Cell,
    Code,
    Column,
    Columns,
    Facts,
    Figures,
    Fold,
    Gauge,
    Headline,
    Items,
    Next,
    Note,
    Section,
    Table,
    Title,
    brief,
    inside,
)
from app.reports.render import blocks_of
from app.reports.scales import LogScale
from app.reports.untrusted import visible

Say = Callable[[str], str]
_STYLES: Final = {"none": "green", "mild": "yellow", "moderate": "yellow", "severe": "red", "collapse": "red"}
_GAP: Final = 2
_WIDEST_GAUGE: Final = 98
_WIDEST_TEXT: Final = 30  # characters of a cell of words before it is folded


def print_blocks(blocks: Sequence[Block], console: Console, say: Say, *, details: bool = False, more: str) -> None:
    """Prints them. `say` turns a text into one that the terminal's encoding has; `more` prints every number."""
    if details:
        for block in blocks:
            _print(block, console, say)
        return
    steps = [block for block in brief(blocks) if isinstance(block, Next)]
    for block in brief(blocks):
        if isinstance(block, Items):
            _lines(console, say, f"{block.heading}: {block.sentence}")
            console.print()
        elif block not in steps:
            _print(block, console, say)
    for step in steps:
        _next(step, console, say)
    console.print(Text(f"Every number: {more}.", style="dim"))


def _print(block: Block, console: Console, say: Say) -> None:
    if isinstance(block, Section):
        console.print(Text(say(block.heading).upper(), style="bold"))
    if isinstance(block, Fold | Section | Columns):
        for inner in inside(block):
            _print(inner, console, say)
    elif (draw := _DRAWN.get(type(block))) is not None:
        draw(block, console, say)
        console.print()


def _title(block: Title, console: Console, say: Say) -> None:
    rows = [("candidate", block.candidate), ("reference", block.reference), ("over", block.scored)]
    rows += [(fact.name.lower(), fact.value) for fact in block.facts if fact.brief]
    _pairs([(name, value) for name, value in rows if value], console, say)


def _pairs(rows: Sequence[tuple[str, str]], console: Console, say: Say) -> None:
    grid = Grid.grid(padding=(0, _GAP, 0, 0))
    grid.add_column(style="dim", max_width=console.width // 2, overflow="fold")
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(Text(say(name)), Text(say(value)))
    console.print(grid)


def _headline(block: Headline, console: Console, say: Say) -> None:
    sure = "conclusive" if block.conclusive else "inconclusive"
    named = Text(block.named.upper(), style=f"bold {_STYLES[block.severity]}")
    console.print(named.append(f"  {block.rank}, {sure}", style="not bold default"))
    _lines(console, say, block.sentence, block.remark)
    if block.gauge:
        console.print()
        for line in drawn(block.gauge, block.severities, min(console.width - 1, _WIDEST_GAUGE)):
            console.print(Text(say(line), no_wrap=True))
    for alert in block.alerts:
        console.print(Text(f"\n{alert.label}: ", style="bold").append(say(alert.text), style="not bold"))


def drawn(gauge: Gauge, severities: Sequence[str], width: int) -> tuple[str, str, str]:
    """Three lines of `width` characters: severities, an axis with the value and its interval, the limits.

    The axis is logarithmic from a quarter of the first limit to three times the last; what is outside is at its ends.
    """
    scale = LogScale(gauge.limits[0] / 4, gauge.limits[-1] * 3)

    def place(value: float) -> int:
        return min(width - 1, max(0, round(scale.at(value) / 100 * (width - 1))))

    bounds = [0, *map(place, gauge.limits), width]
    names, axis, labels = [" "] * width, ["─"] * width, [" "] * width
    for name, left, right in zip(SEVERITIES, bounds, bounds[1:], strict=False):
        shown = name.upper() if name in severities else name
        _write(names, shown, left + max(0, (right - left - len(shown) + 1) // 2))
    for limit in gauge.limits:
        axis[place(limit)] = "┼"
        _write(labels, fmt.short(limit), place(limit) - len(fmt.short(limit)) // 2)
    if gauge.ci:
        low, high = map(place, gauge.ci)
        axis[low : high + 1] = "═" * (high + 1 - low)
        axis[low], axis[high] = "├", "┤"
    axis[place(gauge.mean)] = "●" if gauge.mean >= scale.low else "◂"
    return "".join(names), "".join(axis), "".join(labels)


def _write(line: list[str], text: str, start: int) -> None:
    start = min(max(0, start), max(0, len(line) - len(text)))
    line[start : start + len(text)] = text[: len(line)]


def _figures(block: Figures, console: Console, say: Say) -> None:
    columns = (Column("", "name"), Column(""), Column("", "text"), Column("", "text"))
    rows = tuple((Cell(one.label), Cell(one.value), Cell(one.interval), Cell(one.unit)) for one in block.items)
    _table(Table("", columns, rows), console, say)


@dataclass(frozen=True)
class _Fitted:
    """A column as text, all of one width: `values`, and beside them `notes`, which are dropped if there is no room."""

    label: str
    is_words: bool
    priority: int
    values: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def cells(self) -> list[str]:
        """What is in the column, before it is set to the width of its heading."""
        return [
            f"{value} {note}" if any(self.notes) else value for value, note in zip(self.values, self.notes, strict=True)
        ]

    @property
    def lines(self) -> list[str]:
        """The cells; numbers are at the right."""
        return self.cells if self.is_words else [" " * (self.width - cell_len(cell)) + cell for cell in self.cells]

    @property
    def width(self) -> int:
        """Characters, at least: words fold, numbers and the words of the heading do not."""
        value, whole = (max(map(cell_len, texts), default=0) for texts in (self.values, self.cells))
        folded = max(0, value - _WIDEST_TEXT) if self.is_words else 0
        return max(whole - folded, _half(self.label))

    def without_notes(self) -> _Fitted:
        return replace(self, notes=("",) * len(self.notes))


def _table(block: Table, console: Console, say: Say) -> None:
    columns = fitted(block, console.width, say)
    if block.caption:
        console.print(Text(say(block.caption), style="bold"))
    grid = Grid(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, show_header=any(one.label for one in columns))
    for one in columns:
        heading = Text(one.label, style="dim", justify="left" if one.is_words else "right")
        grid.add_column(heading, width=None if one.is_words else one.width, overflow="fold")
    for row in zip(*(one.lines for one in columns), strict=True):
        grid.add_row(*map(Text, row))
    console.print(grid)


def fitted(table: Table, width: int, say: Say) -> list[_Fitted]:
    """The columns of a table that a terminal of `width` characters has room for.

    Notes and columns of the highest priority go first, the rightmost of them before others. What has priority 0 stays.
    """
    columns = [
        _column(column, [row[index] for row in table.rows], say)
        for index, column in enumerate(table.columns)
        if column.kind != "chart"
    ]

    def too_wide() -> bool:
        return sum(one.width + _GAP for one in columns) - _GAP > width

    for priority in range(max((one.priority for one in columns), default=0), 0, -1):
        for index in reversed([index for index, one in enumerate(columns) if one.priority == priority]):
            if too_wide():
                columns[index] = columns[index].without_notes()
            if too_wide():
                del columns[index]
    for index in sorted(range(len(columns)), key=lambda index: (not columns[index].is_words, -index)):
        if too_wide():
            columns[index] = columns[index].without_notes()
    return columns


def _column(column: Column, cells: Sequence[Cell], say: Say) -> _Fitted:
    texts, notes = [say(cell.text) for cell in cells], [say(cell.note) for cell in cells]
    is_words = column.kind != "number"
    values = _padded(texts, _WIDEST_TEXT) if is_words else aligned(texts)
    return _Fitted(say(column.label), is_words, column.priority, tuple(values), tuple(_padded(notes)))


def aligned(numbers: Sequence[str]) -> list[str]:
    """Numbers of one width, their decimal points below each other."""
    parts = [re.fullmatch(r"(\D*[\d,]*)(.*)", number, re.DOTALL) for number in numbers]
    heads, tails = ([part[group] if part else "" for part in parts] for group in (1, 2))
    wide = max(map(cell_len, heads), default=0)
    return [" " * (wide - cell_len(head)) + head + tail for head, tail in zip(heads, _padded(tails), strict=True)]


def _half(label: str) -> int:
    """Characters of the narrowest column in which a heading has at most two lines."""
    words = label.split()
    splits = (max(len(" ".join(words[:cut])), len(" ".join(words[cut:]))) for cut in range(len(words)))
    return min(splits, default=0)


def _padded(texts: Sequence[str], most: int | None = None) -> list[str]:
    """Texts of one width, `most` at most: what is longer stays as it is."""
    wide = max(map(cell_len, texts), default=0)
    wide = wide if most is None else min(wide, most)
    return [text + " " * (wide - cell_len(text)) for text in texts]


def _note(block: Note, console: Console, say: Say) -> None:
    _lines(console, say, f"{block.label}: {block.text}" if block.label else block.text)


def _items(block: Items, console: Console, say: Say) -> None:
    _lines(console, say, f"{block.heading}:", *(f"- {item}" for item in block.items))


def _facts(block: Facts, console: Console, say: Say) -> None:
    _lines(console, say, block.heading)
    _pairs([(fact.name, fact.value) for fact in block.items], console, say)


def _code(block: Code, console: Console, say: Say) -> None:
    _lines(console, say, f"{block.heading}:")
    console.print(Text(say(block.text)), soft_wrap=True)


def _next(block: Next, console: Console, say: Say) -> None:
    _lines(console, say, block.text)
    console.print(Text(say("  " + block.command)), soft_wrap=True)


def _lines(console: Console, say: Say, *texts: str) -> None:
    for text in filter(None, texts):
        console.print(Text(say(text)))


_DRAWN: Final[dict[type, Callable[[Any, Console, Say], None]]] = {
    Code: _code,
    Facts: _facts,
    Figures: _figures,
    Headline: _headline,
    Items: _items,
    Next: _next,
    Note: _note,
    Table: _table,
    Title: _title,
}


_ASCII: Final = str.maketrans(
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


def render_terminal(report: dict[str, Any], console: Console, *, details: bool = False) -> None:
    """Prints the main results of a report of any kind; with `details` all of them.

    Raises `HemostatError(INVALID_REQUEST)` if it is no report.
    """
    blocks = blocks_of(report)
    more = f"hemostat report {shlex.quote(visible(report['job']))} --details (needs a running service: hemostat up)"
    print_blocks(blocks, console, say_on(console), details=details, more=more)


def say_on(console: Console) -> Say:
    """What turns a text into one that the terminal's encoding has."""
    return _ascii if console.options.ascii_only else str


def _ascii(text: str) -> str:
    """For terminals that take nothing else: signs of ours spelled out, other characters as a question mark."""
    return text.translate(_ASCII).encode("ascii", "replace").decode()
