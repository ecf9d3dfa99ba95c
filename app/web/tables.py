"""Tables as the page draws them: plain data between the view and the template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

Kind = Literal["name", "text", "number", "chart", "code"]


@dataclass(frozen=True)
class Column:
    """A heading; `kind` decides alignment and how the cell behaves on a narrow screen."""

    label: str
    kind: Kind = "number"
    hint: str = ""


@dataclass(frozen=True)
class Cell:
    """What stands in a cell: `text` is untrusted and escaped, `chart` is our own markup, `note` is small print."""

    text: str = ""
    note: str = ""
    chart: Markup | None = None
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of as many cells as there are columns. `axis` goes below the column of kind "chart"."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    axis: Markup | None = None
