"""The page of one job: how far it is, and what came of it. It loads itself again until the job has ended."""

from __future__ import annotations

from dataclasses import dataclass

from app.contracts.job import TERMINAL, Job, JobStatus, Progress
from app.reports.blocks import Fact
from app.reports.untrusted import visible
from app.web import listing
from app.web import progress as words
from app.web.again import kept
from app.web.pages import page
from app.web.phases import in_words

RELOAD_S = 5


@dataclass(frozen=True)
class _Bar:
    """How far a phase is; `total` is 0 if that is not known. `counted` says it in words."""

    phase: str
    done: int
    total: int
    counted: str = ""


def render_job(job: Job, message: str | None, turn: str = "", *, now: float | None = None) -> str:
    """The page. `message` is the newest line that the job's worker wrote for people. `turn` says what
    it waits for. `now`, in Unix seconds, shows how long it runs."""
    told = job.model_dump(mode="json")
    ended = job.status in TERMINAL
    succeeded = job.status is JobStatus.SUCCEEDED
    return page(
        "job.html.j2",
        what="a job",
        title=f"{job.status.value.capitalize()}: {visible(job.kind)} {job.id}",
        reload_s=None if ended else RELOAD_S,
        kind=visible(job.kind),
        status=job.status.value,
        candidate=listing.candidate(told),
        reference=visible(job.reference.model),
        bar=None if ended else _bar(job),
        reached="" if succeeded or not ended else visible(_reached(job)),
        kept=kept(told),
        turn=visible(turn),
        message=visible(message) if message else "",
        error=job.error and (visible(job.error.title), visible(job.error.detail), visible(job.error.hint)),
        report=job.report_url if succeeded else "",
        facts=_facts(job, told, now),
        events=f"{job.report_url.removesuffix('/report')}/events",
    )


def _bar(job: Job) -> _Bar:
    if job.status is JobStatus.QUEUED:  # one that was given back keeps what it had done
        return _Bar(in_words(Progress().phase), 0, 0)
    progress = job.progress
    counted = words.counted(job.kind, progress.model_dump())
    return _Bar(visible(in_words(progress.phase)), progress.done, progress.total, counted)


def _reached(job: Job) -> str:
    """How far a job got that has no result."""
    if not job.attempt:
        return "No worker had taken it."
    if job.progress == Progress():
        return "A worker had taken it; it had not got to a phase yet."
    return f"It got as far as {words.told(job.kind, job.progress.model_dump())}."


def _facts(job: Job, told: dict[str, object], now: float | None) -> list[Fact]:
    return [
        Fact("job", job.id, code=True),
        Fact("text", listing.text(told)),
        Fact("outcome", listing.outcome(told)),
        Fact("attempt", str(job.attempt)),
        *(Fact(name, said) for name, said in listing.times(told, now).items()),
    ]
