"""What the sections about a model's inside share."""

from __future__ import annotations

from app.contracts.report import Mean
from app.kinds.attribute.blocks import Measured
from app.reports.blocks import Cell
from app.web import format as fmt


def on(measured: Measured) -> str:
    """The text in words."""
    documents = f"{fmt.count(measured.documents)} document{'' if measured.documents == 1 else 's'}"
    return f"on {fmt.count(measured.tokens)} tokens of {documents}"


def mean_cell(mean: Mean | None, *, strong: bool = False, percent: bool = False) -> Cell:
    """A mean above its interval."""
    if mean is None:
        return Cell(fmt.NONE)
    text = fmt.estimate(mean.mean, mean.ci, percent=percent)
    return Cell(text.value, text.interval or ("" if mean.mean is None else "no interval"), strong=strong)


def told(mean: Mean, *, percent: bool = False) -> str:
    """A mean with its interval, in a line."""
    return str(fmt.estimate(mean.mean, mean.ci, percent=percent))
