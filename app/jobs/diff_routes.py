"""/v1/diagnosis/diff: candidates of several compare jobs against each other, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Final, Literal
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from app.contracts.diff_report import Measure
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.job import JobStatus
from app.jobs import diff_examples, results, service
from app.jobs.differences import MOST_LOOKED_AT, check_jobs, compare_report_of, told_differences
from app.jobs.filters import Filters
from app.jobs.negotiation import preferred
from app.jobs.record import JOBS_PATH, JobRecord
from app.jobs.representation import (
    CHOICE_POLICY,
    HTML,
    PAGE_POLICY,
    etag_of,
    media_type_of,
    query_error,
    unchanged,
)
from app.kinds.compare.report import CompareReport
from app.openapi import JSON, Answer, answers
from app.reports import describe
from app.reports import format as fmt
from app.reports.origin import scored_text
from app.reports.untrusted import visible
from app.security.scopes import Needs, Scope, key_of
from app.state import State, state_of
from app.web import listing
from app.web.difference import Choice, render_choice, render_difference

PATH: Final = "/v1/diagnosis/diff"
REPORT: Final = JOBS_PATH + "/{job}/report"

router = APIRouter(
    prefix="/v1/diagnosis",
    tags=["diagnosis"],
    default_response_class=Response,
    dependencies=[Depends(Needs(Scope.READ))],
)


class DiffQuery(BaseModel):
    """Query of a difference."""

    model_config = ConfigDict(extra="forbid")

    job: list[str] = Field(
        default=[], description="compare jobs that succeeded, two to twenty; lettered a, b, c in this order"
    )
    by: Measure = Field(default="kl", description="what ranks")
    anyway: bool = Field(
        default=False, description="compare reports that are not comparable, over what they share, and label the result"
    )
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = Field(default=0, description="of the bootstrap")
    format: Literal["json", "html"] | None = Field(default=None, description="overrides Accept")


def place_of(job_id: str) -> str:
    """Where a job can be compared with others."""
    return f"{PATH}?{urlencode({'job': job_id})}"


def links_wanted(request: Request) -> bool:
    """Whether a page may lead to others of this service: a browser shows it. Anyone who asks by `?format=` alone keeps
    it as a file, in which such links lead nowhere."""
    return preferred(request.headers.get("accept"), (JSON, HTML)) == HTML


@router.get(
    "/diff",
    summary="Which candidate is better?",
    responses=answers(
        Answer(
            200,
            diff_examples.DIFF,
            "DiffReport",
            description="Differences of every pair and the ranking, schema `hemostat.diff/1`; for a browser a page, "
            "which for one job alone offers the others",
            others={HTML: "<!doctype html>…"},
            headers={"ETag": "of this answer in this format"},
        ),
        Answer(304, None, description="the client has it already"),
        errors=[
            ErrorCode.INVALID_REQUEST,
            ErrorCode.UNKNOWN_FIELD,
            ErrorCode.REPORTS_NOT_COMPARABLE,
            ErrorCode.JOB_NOT_FOUND,
            ErrorCode.JOB_UNREADABLE,
            ErrorCode.JOB_NOT_FINISHED,
            ErrorCode.ARTIFACT_NOT_FOUND,
            ErrorCode.NOT_ACCEPTABLE,
            ErrorCode.UNAVAILABLE,
        ],
    ),
)
async def get_diff(request: Request, query: Annotated[DiffQuery, Query()]) -> Response:
    """Candidates of finished compare jobs, paired by token: differences with intervals, p-values after Holm's
    correction, and ranks as ranges. The same jobs and seed give the same answer."""
    state = state_of(request)
    owner = key_of(request).reads
    media_type = media_type_of(request, "The difference")
    if media_type == HTML and len(query.job) == 1:
        return await _choice(state, owner, query.job[0], query.seed)
    try:
        check_jobs(query.job)
    except HemostatError as error:
        raise query_error("job", error.detail, error.code, error.hint) from None
    records = [await service.find(state.store, job, owner) for job in query.job]
    linked = media_type == HTML and links_wanted(request)
    asked = (query.by, str(query.anyway), str(query.seed), media_type, str(linked))
    etag = etag_of(*(f"{record.job.id}/{record.job.attempt}" for record in records), *asked)
    for record in records:
        results.require_report(record)
    # Anyone who has the tag has had the answer, and nothing has to be computed. `*` asks whether there is one at all.
    known = unchanged(request, etag, anything=False)
    if known is not None:
        return known
    async with service.told_of_deleted(state.store, query.job):
        found = await state.differences.answer(
            records, by=query.by, anyway=query.anyway, seed=query.seed, owner=key_of(request).owner
        )
    known = unchanged(request, etag)
    if known is not None:
        return known
    headers = {"etag": etag, "vary": "accept"}
    if media_type == JSON:
        return Response(found.model_dump_json(), media_type=JSON, headers=headers)
    links = {"reports": REPORT, "again": PATH} if linked else {}
    page = await asyncio.to_thread(lambda: render_difference(found, seed=query.seed, **links))
    return Response(page, media_type=HTML, headers=headers | {"content-security-policy": PAGE_POLICY})


# --- the page on which jobs are chosen


async def _choice(state: State, owner: str | None, job_id: str, seed: int) -> Response:
    first = await service.find(state.store, job_id, owner)
    filters = Filters(JobStatus.SUCCEEDED, "compare", owner=owner)
    records, _ = await state.store.page(limit=MOST_LOOKED_AT, filters=filters)
    async with service.told_of_deleted(state.store, [job_id]):
        page = await asyncio.to_thread(lambda: _choices(state, first, records, seed))
    return Response(page, media_type=HTML, headers={"vary": "accept", "content-security-policy": CHOICE_POLICY})


def _choices(state: State, first: JobRecord, records: Sequence[JobRecord], seed: int) -> str:
    mine = compare_report_of(first, state.settings)
    others = []
    for record in records:
        if record.job.id == first.job.id:
            continue
        try:
            report = compare_report_of(record, state.settings)
        except HemostatError:
            continue  # its file is gone, or of another version: nothing to compare with
        others.append(_of(record, report, told_differences(mine, report)))
    return render_choice(
        _of(first, mine),
        others,
        path=PATH,
        report=REPORT.format(job=quote(first.job.id)),
        looked_at=len(records),
        seed=seed,
    )


def _of(record: JobRecord, report: CompareReport, differs: str = "") -> Choice:
    source = report.provenance
    scored = f"{fmt.count(report.tokens)} tokens of {fmt.count(report.documents)} documents"
    return Choice(
        job=record.job.id,
        candidate=visible(describe.model(source.candidate)),
        reference=visible(describe.model(source.reference)),
        text=f"{scored_text(report)}, {scored}",
        severity=listing.decided(report.severity, () if report.decision.conclusive else report.decision.classes),
        finished=fmt.moment(source.finished_at),
        differs=visible(differs),
    )
