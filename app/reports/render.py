"""A report of any kind as a page and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.kinds.registry import KINDS
from app.reports.blocks import Block
from app.reports.html import render_html
from app.reports.markdown import render_markdown
from app.reports.reading import parse


def blocks_of(report: dict[str, Any]) -> Sequence[Block]:
    """What a report shows (`hemostat.report/1` as JSON data).

    Fields that this version does not know are left out, so that a report of a newer one still shows. Raises as
    `parse`.
    """
    data = parse(report)
    blocks: Sequence[Block] = KINDS[data.kind].call("view", data)
    return blocks


def render(report: dict[str, Any]) -> str:
    """The page of a report, one file that can be mailed: no request leaves it, no script runs in it.

    Raises as `blocks_of`.
    """
    return render_html(blocks_of(report))


def as_markdown(report: dict[str, Any]) -> str:
    """The main results as Markdown. Raises as `blocks_of`."""
    return render_markdown(blocks_of(report))
