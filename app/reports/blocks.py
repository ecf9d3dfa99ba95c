"""A report's view is a list of blocks. Each kind lists its own; `html`, `terminal` and `markdown` show any list.

To show the report of a kind:

1. Write `app/kinds/<kind>/view.py` with one public function, `blocks(report) -> list[Block]`:

       return [
           title(report, what="sweep report", heading=heading(report)),
           Section("found", heading(report), (Note(sentence(report), kind="sentence"), Figures(figures(report)))),
           Section("points", "Points", (points_table(report), Note(points_note(report)))),
           headline(report, sentence=strongest(report), chart_title="Excess KL of the strongest setting"),
           *closing(report),
       ]

   `title`, `headline` and `closing` (limits, provenance, reproduce) are in `app.reports.common`. The verdict is
   first if it is the answer of the kind. Leave a block out if it has nothing to show: an optional section is
   `*([Section(...)] if found else [])`.
2. Mark with `brief=True` what a terminal shows by default and Markdown holds: the sentence of the answer, the figures,
   one small table, and `Next`. Together they must fit 40 lines of 80 characters. Everything is in the page and in
   `--details`.
3. Give columns that a narrow terminal may drop a `priority`: 3 goes first, 0 never goes. A column of charts is not for
   a terminal. Give the number a column of its own beside each chart.
4. Name it in `app/kinds/<kind>/__init__.py`: `KIND = Kind(…, view=f"{__name__}.view:blocks")`.
5. Add a line to `tests/unit/app/reports/test_snapshots.py`, run it with `--update-snapshots`, and read the files it
   wrote. Tests of the kind are of numbers and decisions, not of words and markup.

The renderers escape every text. Text that others wrote goes through `app.reports.untrusted.visible` first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from markupsafe import Markup

from app.contracts.report import Severity

ColumnKind = Literal["name", "text", "number", "chart", "code"]
NoteKind = Literal["note", "plain", "sentence", "alert", "good", "bad"]


@dataclass(frozen=True, kw_only=True)
class Block:
    """One thing that a report shows. `brief`: the short output of a terminal, and Markdown, show it too."""

    brief: bool = False


@dataclass(frozen=True)
class Fact:
    """A name and a value; `code` values are identifiers. A terminal's short output shows those that are `brief`."""

    name: str
    value: str
    code: bool = False
    brief: bool = False


@dataclass(frozen=True)
class Title(Block):
    """Which models over which text. `what` names the kind of report, `heading` titles the browser's tab.

    A page of several candidates names none here: its heading is the title.
    """

    what: str
    heading: str
    candidate: str
    reference: str
    scored: str
    facts: tuple[Fact, ...]
    version: str
    preposition: str = "against"


@dataclass(frozen=True)
class Alert:
    """Something to know before the numbers are read. `kind` is a class of the style sheet."""

    label: str
    text: str
    kind: Literal["", "bad", "good"] = ""


@dataclass(frozen=True)
class Pip:
    """One step of the five. `state`: "on" (reached for sure), "may" (reached by part of the interval), "off"."""

    name: Severity
    state: str


@dataclass(frozen=True)
class Gauge:
    """Where a value and its interval are among the severity limits, all in nats per token."""

    mean: float
    ci: tuple[float, float] | None
    limits: tuple[float, float, float, float]


@dataclass(frozen=True)
class Chart(Block):
    """A picture of our own making, with a title and a description inside for those who cannot see it."""

    caption: str
    svg: Markup
    unit: str = ""


@dataclass(frozen=True)
class Headline(Block):
    """The severity and how sure it is. `severities` are those that the verdict names, mildest first."""

    severity: Severity
    severities: tuple[Severity, ...]
    conclusive: bool
    named: str
    rank: str
    pips: tuple[Pip, ...]
    sentence: str
    remark: str
    alerts: tuple[Alert, ...]
    gauge: Gauge | None
    chart: Chart | None
    nav: str = "Verdict"


@dataclass(frozen=True)
class Figure:
    """A key number."""

    label: str
    value: str
    unit: str
    interval: str
    note: str


@dataclass(frozen=True)
class Figures(Block):
    """Key numbers, four to a row."""

    items: tuple[Figure, ...]


@dataclass(frozen=True)
class Column:
    """A heading. `kind` decides the alignment. A narrow terminal drops the columns of the highest `priority` first."""

    label: str
    kind: ColumnKind = "number"
    priority: int = 0


@dataclass(frozen=True)
class Cell:
    """One cell: `text` is escaped, `chart` is our own markup, `note` is small print (an interval, a unit)."""

    text: str = ""
    note: str = ""
    chart: Markup | None = None
    strong: bool = False


@dataclass(frozen=True)
class Table(Block):
    """Rows of as many cells as there are columns. `axis` goes below the column of kind "chart"."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    axis: Markup | None = None
    style: str = "stack"


@dataclass(frozen=True)
class Note(Block):
    """A paragraph, with a bold `label` before it if it has one."""

    text: str
    label: str = ""
    kind: NoteKind = "note"


@dataclass(frozen=True)
class Facts(Block):
    """Names and values, one to a line."""

    items: tuple[Fact, ...]
    heading: str = ""
    style: str = "facts"


@dataclass(frozen=True)
class Items(Block):
    """A list of short texts. The brief output has their `names` instead, if they have any."""

    items: tuple[str, ...]
    heading: str = ""
    names: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """All of them in one paragraph."""
        return "; ".join(item.removesuffix(".") for item in self.names or self.items) + "."


@dataclass(frozen=True)
class Code(Block):
    """Commands or JSON, to be copied."""

    text: str
    heading: str = ""


@dataclass(frozen=True)
class Next(Block):
    """What to do now: a sentence and the command that does it."""

    text: str
    command: str


@dataclass(frozen=True)
class Token:
    """A token in its text. `step` is its colour, 0 to 7; `label` is small print behind the worst one."""

    text: str
    step: int
    title: str
    label: str = ""


@dataclass(frozen=True)
class Passage:
    """A text whose tokens are coloured."""

    caption: str
    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class Passages(Block):
    """Coloured texts. `legend` names the value at which each colour begins; empty if another block has it."""

    legend: tuple[tuple[int, str], ...]
    items: tuple[Passage, ...]


@dataclass(frozen=True)
class Columns(Block):
    """Lists of blocks side by side."""

    parts: tuple[Sequence[Block], ...]


@dataclass(frozen=True)
class Fold(Block):
    """Blocks that a page opens on demand."""

    summary: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Section(Block):
    """Blocks under a heading. `id` is the anchor; `nav` is the entry of the page's menu, by default the heading."""

    id: str
    heading: str
    blocks: Sequence[Block]
    nav: str = ""
    style: str = field(default="", kw_only=True)


def fold(summary: str, blocks: Sequence[Block]) -> list[Block]:
    """A fold, or nothing if there is nothing to fold away."""
    return [Fold(summary, blocks)] if blocks else []


def filled(table: Table) -> list[Block]:
    """The table, or nothing if it has no rows."""
    return [table] if table.rows else []


def brief(blocks: Sequence[Block]) -> Iterator[Block]:
    """The title, warnings and what is marked, in order, out of sections, columns and folds."""
    for block in blocks:
        if isinstance(block, Section | Fold | Columns):
            yield from brief(inside(block))
        elif block.brief or isinstance(block, Title):
            yield block
        elif isinstance(block, Headline):
            yield from (Note(alert.text, alert.label) for alert in block.alerts)


def inside(block: Block) -> Sequence[Block]:
    """The blocks of a block that holds others."""
    if isinstance(block, Columns):
        return [inner for part in block.parts for inner in part]
    return block.blocks if isinstance(block, Section | Fold) else ()
