"""Blocks as one HTML file that can be mailed: no request leaves it, no script runs in it."""

from __future__ import annotations

from collections.abc import Sequence

from app.contracts.report import SCHEMA
from app.reports.blocks import Block, Headline, Section, Title
from app.web.pages import page


def render_html(blocks: Sequence[Block], *, schema: str = SCHEMA) -> str:
    """The page of blocks that begin with a `Title`."""
    title, *body = blocks
    if not isinstance(title, Title):
        raise TypeError("the first block of a report is its title")
    return page(
        "blocks.html.j2",
        schema=schema,
        what=title.what,
        title=title.heading,
        head=title,
        menu=list(filter(None, map(_entry, body))),
        body=body,
        name_of=lambda block: type(block).__name__,
    )


def _entry(block: Block) -> tuple[str, str] | None:
    """The anchor and the label of a block in the menu."""
    if isinstance(block, Headline):
        return "verdict", block.nav
    return (block.id, block.nav or block.heading) if isinstance(block, Section) else None
