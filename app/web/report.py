"""The report as one HTML file that can be mailed: no request leaves it, no script runs in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.report import SCHEMA, Report
from app.kinds.mitigate.report import MitigateReport
from app.kinds.registry import KINDS
from app.reports.html import render_html
from app.reports.markdown import render_markdown
from app.web import describe
from app.web.pages import page
from app.web.reading import parse
from app.web.sections.front import front, heading
from app.web.sections.front import left as left_after
from app.web.sections.origin import origin
from app.web.sections.verdict import verdict
from app.web.untrusted import visible


def render(report: dict[str, Any], *, others: str = "") -> str:
    """The page of a report of any kind (`hemostat.report/1` as JSON data).

    `others`: where the service that shows the page lets the candidate be compared with others, "" for a page that is
    kept. The result depends on these alone. Fields that this version does not know are left out, so that a report of a
    newer one still shows. Raises `HemostatError(INVALID_REQUEST)` for anything that is not such a report.
    """
    data = parse(report)
    if (shown := KINDS[data.kind].call("view", data)) is not None:
        return render_html(shown, others=others)
    template, own = _view(data)
    return page(
        template,
        schema=SCHEMA,
        origin=origin(data),
        warnings=[visible(warning) for warning in data.warnings],
        not_tested=[visible(one.text) for one in data.not_tested],
        others=others,
        job=visible(data.job),
        **own,
    )


def as_markdown(report: dict[str, Any]) -> str:
    """The main results as Markdown.

    Raises `HemostatError(INVALID_REQUEST)` if it is no report, or one of a kind that has no Markdown yet.
    """
    data = parse(report)
    shown = KINDS[data.kind].call("view", data)
    if shown is None:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"A report of kind {data.kind} cannot be shown as Markdown.",
            hint="leave --markdown out",
        )
    return render_markdown(shown)


def _view(report: Report) -> tuple[str, dict[str, Any]]:
    """The template of a kind, and what it draws beside what all kinds have."""
    views: dict[str, Callable[[Any], tuple[str, dict[str, Any]]]] = {
        "mitigate": _mitigation,
    }
    return views[report.kind](report)


def _mitigation(report: MitigateReport) -> tuple[str, dict[str, Any]]:
    candidate, reference = (
        describe.model(model) for model in (report.provenance.candidate, report.provenance.reference)
    )
    whose = "what is recommended" if report.helped else "the candidate"
    return "mitigate.html.j2", {
        "what": "mitigation report",
        "preposition": "towards",
        "title": visible(f"{heading(report)}: {candidate} towards {reference}"),
        "chart_title": f"Excess KL over the noise floor of {whose}",
        "front": front(report),
        "verdict": replace(verdict(report), sentence=left_after(report)),
    }
