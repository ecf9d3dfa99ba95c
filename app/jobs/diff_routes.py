"""/v1/diagnosis/diff: candidates of several compare jobs against each other, over HTTP."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from app.contracts.diff_report import Measure
from app.contracts.errors import ErrorCode, HemostatError
from app.jobs import diff_examples, results, service
from app.jobs.differences import check_jobs
from app.jobs.representation import (
    HTML,
    PAGE_POLICY,
    etag_of,
    media_type_of,
    query_error,
    unchanged,
)
from app.kinds.compare.difference import render_difference
from app.openapi import JSON, Answer, answers
from app.security.scopes import Needs, Scope, key_of
from app.state import state_of

PATH: Final = "/v1/diagnosis/diff"

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


@router.get(
    "/diff",
    summary="Which candidate is better, of finished jobs.",
    responses=answers(
        Answer(
            200,
            diff_examples.DIFF,
            "DiffReport",
            description="Differences of every pair and the ranking, schema `hemostat.diff/1`; for a browser a page",
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
    try:
        check_jobs(query.job)
    except HemostatError as error:
        raise query_error("job", error.detail, error.code, error.hint) from None
    records = [await service.find(state.store, job, owner) for job in query.job]
    asked = (query.by, str(query.anyway), str(query.seed), media_type)
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
    page = await asyncio.to_thread(lambda: render_difference(found, seed=query.seed))
    return Response(page, media_type=HTML, headers=headers | {"content-security-policy": PAGE_POLICY})
