"""The brief part of a report as Markdown, for a pull request or a chat."""

from __future__ import annotations

import re
from collections.abc import Sequence

from app.reports.blocks import Block, Cell, Column, Figures, Headline, Items, Next, Note, Table, Title, brief


def render_markdown(blocks: Sequence[Block]) -> str:
    """A heading, the verdict, key numbers, the small tables and the limitations. Every text is escaped."""
    return "\n\n".join(filter(None, map(_shown, brief(blocks)))) + "\n"


def _shown(block: Block) -> str:
    if isinstance(block, Title):
        return f"### {_text(block.heading)}\n\n{_text(block.scored)}"
    if isinstance(block, Headline):
        sure = "conclusive" if block.conclusive else "inconclusive"
        said = f"**{block.named.capitalize()}** ({block.rank}, {sure}). {_text(block.sentence)} {_text(block.remark)}"
        return "\n\n".join([said.rstrip(), *(f"**{alert.label}.** {_text(alert.text)}" for alert in block.alerts)])
    if isinstance(block, Figures):
        rows = tuple((Cell(one.label), Cell(one.value, one.interval), Cell(one.unit)) for one in block.items)
        return _table(Table("", (Column("", "name"), Column(""), Column("", "text")), rows))
    if isinstance(block, Table):
        return f"**{_text(block.caption)}**\n\n{_table(block)}"
    return _words(block)


def _words(block: Block) -> str:
    if isinstance(block, Items):
        return f"**{block.heading}:** {_text(block.sentence)}"
    if isinstance(block, Next):
        return f"{_text(block.text)}\n\n```sh\n{block.command.replace('```', '')}\n```"
    return _note(block) if isinstance(block, Note) else ""


def _note(note: Note) -> str:
    label = f"**{_text(note.label)}.** " if note.label else ""
    return label + _text(note.text)


def _table(table: Table) -> str:
    kept = [index for index, column in enumerate(table.columns) if column.kind != "chart"]
    columns = [table.columns[index] for index in kept]
    lines = [
        [_text(column.label) for column in columns],
        ["--:" if column.kind == "number" else ":--" for column in columns],
        *([_text(_cell(row[index], table.columns[index])) for index in kept] for row in table.rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(cell: Cell, column: Column) -> str:
    between = ", " if column.kind == "name" else " "
    return between.join(part for part in (cell.text, cell.note) if part)


def _text(text: str) -> str:
    """Text without markup: the signs of Markdown and of HTML are escaped, and a line stays one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", " ".join(text.split()))
