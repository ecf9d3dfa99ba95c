"""An estimate in a table."""

from __future__ import annotations

from app.contracts.report import Mean
from app.reports import format as fmt
from app.reports.blocks import Cell


def estimate_cell(mean: Mean, *, percent: bool = False, strong: bool = True) -> Cell:
    """A mean above its interval."""
    text = fmt.estimate(mean.mean, mean.ci, percent=percent)
    return Cell(text.value, text.interval or "no interval", strong=strong)
