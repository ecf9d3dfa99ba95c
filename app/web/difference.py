"""Pages about several compare jobs: which to compare, and how they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args
from urllib.parse import urlencode

from app.contracts.diff_report import MOST, SCHEMA, DiffReport, Measure
from app.web import format as fmt
from app.web.pages import page
from app.web.sections.difference import NAMES, difference, rank
from app.web.untrusted import visible


def render_difference(report: DiffReport, *, seed: int = 0, reports: str = "", again: str = "") -> str:
    """The page of differences, computed with this seed.

    `reports` is a job's page with `{job}` in its place, `again` the path that this page was asked for by; both are ""
    for a page that is kept, which then has no links.
    """
    return page(
        "difference.html.j2",
        what="difference of candidates",
        title=visible(report.verdict),
        schema=SCHEMA,
        report=report,
        seed=seed,
        shown=difference(report),
        counted=f"{fmt.count(report.tokens)} tokens of {fmt.count(report.documents)} documents, paired",
        warnings=[visible(warning) for warning in report.warnings],
        candidates=[
            (row.letter, rank(row), visible(row.candidate), row.job, reports.format(job=row.job))
            for row in sorted(report.ranking, key=lambda row: row.letter)
        ],
        measures=[
            (NAMES[by], "" if by == report.by or not again else f"{again}{_query(report, by, seed)}")
            for by in get_args(Measure)
        ],
    )


def _query(report: DiffReport, by: Measure, seed: int) -> str:
    asked: list[tuple[str, object]] = [("job", row.job) for row in sorted(report.ranking, key=lambda row: row.letter)]
    asked.append(("by", by))
    if not report.comparable:
        asked.append(("anyway", "true"))
    if seed:
        asked.append(("seed", seed))
    return "?" + urlencode(asked)


@dataclass(frozen=True)
class Choice:
    """A job that may be compared with the first one. `differs` names what was measured otherwise."""

    job: str
    candidate: str
    reference: str
    text: str
    severity: str
    finished: str
    differs: str = ""


def render_choice(
    first: Choice, others: Sequence[Choice], *, path: str, report: str, looked_at: int, seed: int = 0
) -> str:
    """The page on which the jobs to compare are chosen: those that were measured alike first.

    `path` is where the form leads, `report` the first job's page, `looked_at` how many of the latest jobs were read,
    `seed` that of the bootstrap, which the form keeps.
    """
    return page(
        "choose.html.j2",
        what="compare with another job",
        title=visible(f"Compare {first.candidate} with another job"),
        schema=SCHEMA,
        form_action="'self'",
        first=first,
        alike=[other for other in others if not other.differs],
        unlike=[other for other in others if other.differs],
        path=path,
        report=report,
        looked_at=looked_at,
        seed=seed,
        most=MOST,
        measures=[(by, NAMES[by]) for by in get_args(Measure)],
    )
