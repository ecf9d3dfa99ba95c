"""Whatever text a report holds, no renderer lets it act on a terminal or turn the text around it."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from app.kinds.registry import KINDS
from app.reports.html import render_html
from app.reports.markdown import render_markdown
from tests.support.terminal import printed
from tests.unit.app.reports.test_snapshots import REPORTS

HOSTILE = "\x1b[31m\u202e<b class=x>"
Path = tuple[str | int, ...]


def texts(value: Any, path: Path = ()) -> Iterator[Path]:
    """Where texts are; of the entries of a list the first alone."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from texts(inner, (*path, name))
    elif isinstance(value, list | tuple) and value:
        yield from texts(value[0], (*path, 0))


def spoiled(report: dict[str, Any], kind: str) -> tuple[dict[str, Any], int]:
    """The report with the hostile text behind each text that its contract leaves open, and how many these are."""
    made, count = copy.deepcopy(report), 0
    for path in texts(report):
        holder = made
        for step in path[:-1]:
            holder = holder[step]
        if isinstance(holder, tuple):
            continue
        before = holder[path[-1]]
        holder[path[-1]] = before + HOSTILE
        try:
            KINDS[kind].report.model_validate(made)
            count += 1
        except ValidationError:
            holder[path[-1]] = before
    return made, count


@pytest.mark.parametrize("kind", REPORTS)
def test_no_text_of_a_report_reaches_a_reader_as_it_is(kind: str) -> None:
    report, count = spoiled(REPORTS[kind](), kind)
    assert count > 20
    blocks = KINDS[kind].call("view", KINDS[kind].report.model_validate(report))
    shown = {
        "page": render_html(blocks),
        "markdown": render_markdown(blocks),
        "terminal": printed(report, 120),
        "details": printed(report, 120, details=True),
    }
    assert "<b class=x>" not in shown["page"]
    for renderer, text in shown.items():
        at = min((text.find(sign) for sign in ("\x1b", "\u202e") if sign in text), default=None)
        assert at is None, (renderer, text[max(0, at or 0) - 200 : (at or 0) + 20])
