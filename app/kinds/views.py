"""Which kinds show their reports as blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from app.contracts.report import Report
from app.kinds.compare import view as compare
from app.reports.blocks import Block

VIEWS: Final[dict[str, Callable[[Any], list[Block]]]] = {"compare": compare.blocks}


def blocks(report: Report) -> list[Block] | None:
    """The blocks of a report; None of a kind that has a page of its own."""
    view = VIEWS.get(report.kind)
    return view(report) if view else None
