"""The page at the service's root: what it did last, what it serves, and where everything else is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.contracts.deployment import Deployment
from app.contracts.job import Job, JobStatus, Progress
from app.reports import format as fmt
from app.reports.untrusted import visible
from app.web import listing
from app.web.pages import page
from app.web.progress import briefly


@dataclass(frozen=True)
class Place:
    """Somewhere that a browser can go from the root."""

    path: str
    what: str


@dataclass(frozen=True)
class _Row:
    """`link`: the report where there is one, else the page of the job. `far`: how far one is that runs."""

    id: str
    link: str
    kind: str
    candidate: str
    text: str
    state: str
    far: str
    created: str


def render_home(
    jobs: Sequence[Job], deployments: Sequence[Deployment], places: Sequence[Place], *, missing: str = ""
) -> str:
    """The page. `jobs` are the latest, newest first; `missing` says why neither jobs nor deployments are known."""
    return page(
        "home.html.j2",
        what="what a language model loses when it is changed for deployment",
        title="Hemostat",
        jobs=[_row(job) for job in jobs],
        deployments=[
            (visible(one.name), listing.candidate({"candidate": one.model.model_dump(mode="json")}), one.state.value)
            for one in deployments
        ],
        places=places,
        missing=missing,
    )


def _row(job: Job) -> _Row:
    succeeded = job.status is JobStatus.SUCCEEDED
    told = job.model_dump(mode="json")
    return _Row(
        id=job.id,
        link=job.report_url if succeeded else job.report_url.removesuffix("/report"),
        kind=job.kind,
        candidate=listing.candidate(told),
        text=listing.text(told),
        state=listing.outcome(told) if job.severity else job.status.value,
        far=_far(job),
        created=fmt.moment(job.created_at),
    )


def _far(job: Job) -> str:
    if job.status not in (JobStatus.RUNNING, JobStatus.CANCELLING) or job.progress == Progress():
        return ""
    return visible(briefly(job.progress.model_dump()))
