"""Pages about several compare jobs: which to compare, and how they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from app.contracts.diff_report import MOST, SCHEMA, DiffReport, Measure
from app.kinds.compare.difference import NAMES, blocks
from app.reports.html import render_html
from app.reports.untrusted import visible
from app.web.pages import page


def render_difference(report: DiffReport, *, seed: int = 0, reports: str = "", again: str = "") -> str:
    """The page of differences, computed with this seed. `reports` and `again` are the addresses of its links."""
    return render_html(blocks(report, seed=seed, reports=reports, again=again), schema=SCHEMA)


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
