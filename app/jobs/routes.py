"""/v1/diagnosis: jobs over HTTP."""

import asyncio
import contextlib
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from redis.exceptions import RedisError
from starlette.responses import Response

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.job import JobPage, JobStatus
from app.contracts.request import Submission
from app.deployments.settle import check_target
from app.jobs import examples, service
from app.jobs.filters import Filters
from app.jobs.ids import is_job_id
from app.jobs.page import page_of
from app.jobs.parsing import parse_submission
from app.jobs.record import JOBS_PATH
from app.jobs.representation import (
    FORMAT_PARAMETER,
    HTML,
    etag_of,
    media_type_of,
    query_error,
    unchanged,
)
from app.jobs.sse import EventStream, parse_last_event_id, respond
from app.jobs.turns import queue_of
from app.kinds.registry import JobKind
from app.openapi import JSON, Answer, answers, reference
from app.security.audit import unchanged_by
from app.security.scopes import Needs, Scope, key_of, require
from app.state import State, parsed, state_of
from app.telemetry.metrics import OTHER

SUBMIT_ERRORS: Final = [
    code
    for code in ErrorCode
    if code.value.startswith(("checkpoint_", "unknown_", "document_", "models_", "idempotency_"))
] + [
    ErrorCode.INVALID_JSON,
    ErrorCode.INVALID_REQUEST,
    ErrorCode.GROUP_SIZE_MISMATCH,
    ErrorCode.PATTERN_MISMATCH,
    ErrorCode.RECIPE_NOT_APPLICABLE,
    ErrorCode.VOCABULARY_MISMATCH,
    ErrorCode.TOO_MANY_DOCUMENTS,
    ErrorCode.WINDOW_TOO_LARGE,
    ErrorCode.CHAT_TEMPLATE_MISSING,
    ErrorCode.PATH_FORBIDDEN,
    ErrorCode.TEXT_NOT_FOUND,
    ErrorCode.DEPLOYMENT_NOT_FOUND,
    ErrorCode.PROFILE_MISMATCH,
    ErrorCode.BODY_TOO_LARGE,
    ErrorCode.BODY_TOO_SLOW,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    ErrorCode.QUEUE_FULL,
    ErrorCode.UNAVAILABLE,
]

router = APIRouter(
    prefix="/v1/diagnosis",
    tags=["diagnosis"],
    default_response_class=Response,
    dependencies=[Depends(Needs(Scope.READ))],
)
changes = APIRouter(
    prefix="/v1/diagnosis",
    tags=["diagnosis"],
    default_response_class=Response,
    dependencies=[Depends(Needs(Scope.DIAGNOSE))],
)


class ListQuery(BaseModel):
    """Query of the list of jobs."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    after: str | None = Field(default=None, description="show jobs older than this one: `last_id` of a page")
    before: str | None = Field(
        default=None, description=("show the nearest jobs newer than this one: `first_id` of a page")
    )
    status: JobStatus | None = None
    kind: JobKind | None = None
    candidate: str | None = Field(default=None, description="alias of the candidate's model")
    metadata: list[str] = Field(default=[], max_length=16, description="`key=value`, may be repeated; all must match")

    def filters(self, owner: str | None) -> Filters:
        """As the store takes them; `owner` None: of all owners. Raises RequestError for metadata without `=`."""
        pairs = []
        for text in self.metadata:
            key, equals, value = text.partition("=")
            if not key or not equals:
                raise query_error("metadata", "A metadata filter is not key=value.")
            pairs.append((key, value))
        return Filters(self.status, self.kind, self.candidate, tuple(pairs), owner)

    def cursor(self) -> tuple[str | None, str | None]:
        """(after, before). Raises RequestError for what cannot be a job's id, and for both at once."""
        for name, value in (("after", self.after), ("before", self.before)):
            if value is not None and not is_job_id(value):
                raise query_error(name, "The cursor is not a job's id.", ErrorCode.INVALID_CURSOR)
        if self.after is not None and self.before is not None:
            raise query_error("before", "Give either after or before.")
        return self.after, self.before


def _job_response(job: BaseModel, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(job.model_dump_json(), status_code=status, headers=headers, media_type=JSON)


def require_json(request: Request) -> None:
    """Raises HemostatError (UNSUPPORTED_MEDIA_TYPE) for a body that does not say it is JSON in UTF-8."""
    media_type, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.casefold().replace(" ", "").replace('"', "")
    if media_type.strip().casefold() != JSON or ("charset=" in charset and "charset=utf-8" not in charset):
        given = f"{media_type.strip()[:64]!a}" if media_type.strip() else "missing"
        raise HemostatError(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE, f"Content-Type is {given}; the body must be application/json in UTF-8."
        )


@changes.post(
    "/jobs",
    status_code=202,
    summary="Submit a diagnosis job, or estimate it",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": reference("SubmitRequest"), "examples": examples.REQUESTS}},
        },
        "parameters": [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "description": "The same key and body give the same job, as long as it is kept.",
                "schema": {"type": "string", "maxLength": 255},
            }
        ],
    },
    responses=answers(
        Answer(
            202,
            examples.QUEUED,
            "Job",
            headers={
                "Location": "the job's URL",
                "Idempotency-Replayed": "true where an earlier request had made the job",
            },
        ),
        Answer(200, examples.ESTIMATE, "Estimate", description="`dry_run`: valid, and what it would take"),
        errors=SUBMIT_ERRORS,
    ),
)
async def submit_job(request: Request) -> Response:
    """Checks everything that can be checked without the model, then queues the job.

    A 202 is a promise: the job survives the loss of any process, of Redis and of the machine's power.
    """
    state = state_of(request)
    owner = key_of(request).owner
    require_json(request)
    kind = OTHER
    try:
        asked = await parsed(request, parse_submission)
        kind = asked.kind
        if asked.for_deployment is not None:
            require(request, Scope.DEPLOY)  # what the job proves is promoted there
        await check_target(state.deployments, asked)
        if asked.dry_run:
            estimate = await service.dry_run(state.redis, asked, state.settings, owner)
            _count(state, asked, "dry_run")
            return _job_response(estimate)
        key = request.headers.get("idempotency-key")
        hold = await asyncio.to_thread(service.hold_of, owner, key, asked)
        made = await service.submit(state.store, state.docket, asked, state.settings, hold, owner)
    except HemostatError:
        state.telemetry.submitted.labels(kind, "refused").inc()
        raise
    _count(state, asked, "replayed" if made.replayed else "created")
    headers = {"location": f"{JOBS_PATH}/{made.job.id}"}
    if made.replayed:
        unchanged_by(request)
        headers["idempotency-replayed"] = "true"
    return _job_response(made.job, 202, headers)


def _count(state: State, asked: Submission, outcome: str) -> None:
    state.telemetry.submitted.labels(asked.kind, outcome).inc()


@router.get(
    "/jobs",
    summary="List jobs, newest first",
    responses=answers(
        Answer(200, examples.PAGE, "JobPage"),
        errors=[
            ErrorCode.INVALID_REQUEST,
            ErrorCode.UNKNOWN_FIELD,
            ErrorCode.INVALID_CURSOR,
            ErrorCode.UNAVAILABLE,
        ],
    ),
)
async def list_jobs(request: Request, query: Annotated[ListQuery, Query()]) -> Response:
    """New jobs do not shift the pages: a cursor is a job, not an offset."""
    after, before = query.cursor()
    records, cursor = await state_of(request).store.page(
        after=after, before=before, limit=query.limit, filters=query.filters(key_of(request).reads)
    )
    jobs = tuple(record.job for record in records)
    first, last = (jobs[0].id, jobs[-1].id) if jobs else (None, None)
    if cursor is not None:
        first, last = (cursor, last) if before is not None else (first, cursor)
    return _job_response(JobPage(data=jobs, first_id=first, last_id=last, has_more=cursor is not None))


@router.get(
    "/jobs/{job_id}",
    summary="One job",
    openapi_extra={"parameters": [FORMAT_PARAMETER]},
    responses=answers(
        Answer(
            200,
            examples.RUNNING,
            "Job",
            description="the job; for a browser a page that shows how far it is and loads itself again",
            others={HTML: "<!doctype html>…"},
            headers={"ETag": "changes when the job does; not of the page"},
        ),
        Answer(304, None, description="the job has not changed since If-None-Match"),
        errors=[
            ErrorCode.JOB_NOT_FOUND,
            ErrorCode.JOB_UNREADABLE,
            ErrorCode.INVALID_REQUEST,
            ErrorCode.UNAVAILABLE,
        ],
    ),
)
async def get_job(request: Request, job_id: str) -> Response:
    """Status and progress; after its end, severity or error. A client that prefers HTML by `Accept`, or asks for it by
    `?format=html`, gets a page. A client that accepts neither gets JSON."""
    state = state_of(request)
    media_type = media_type_of(request, otherwise=JSON)
    record = await service.find(state.store, job_id, key_of(request).reads)
    if media_type == HTML:
        return await page_of(state, record, key_of(request).reads)
    job = record.job
    etag = etag_of(job.model_dump_json())
    return unchanged(request, etag) or _job_response(job, headers={"etag": etag, "vary": "accept"})


@router.get(
    "/jobs/{job_id}/queue",
    summary="What a queued job waits for",
    responses=answers(
        Answer(200, examples.QUEUE, "Queue"),
        errors=[ErrorCode.JOB_NOT_FOUND, ErrorCode.JOB_UNREADABLE, ErrorCode.UNAVAILABLE],
    ),
)
async def get_queue(request: Request, job_id: str) -> Response:
    """How many jobs run before it, and which is the first of them.

    Owners of keys take turns, and the jobs of one owner run in the order of submission. A job that was returned to the
    queue runs after the waiting jobs.
    """
    state = state_of(request)
    record = await service.find(state.store, job_id, key_of(request).reads)
    return _job_response(await queue_of(state.store, record, key_of(request).reads))


@router.get(
    "/jobs/{job_id}/events",
    summary="Follow a job (server-sent events)",
    openapi_extra={
        "parameters": [
            {
                "name": "Last-Event-ID",
                "in": "header",
                "required": False,
                "description": "Id of the last event that the client has.",
                "schema": {"type": "string"},
            }
        ]
    },
    responses=answers(
        Answer(
            200,
            examples.EVENTS,
            media_type="text/event-stream",
            description="Events `state`, `progress`, `log`, `gap` and `end`; `data` is the schema `Event`",
        ),
        Answer(204, None, description="the client has the last event: none will follow"),
        errors=[ErrorCode.JOB_NOT_FOUND, ErrorCode.JOB_UNREADABLE, ErrorCode.INVALID_CURSOR, ErrorCode.UNAVAILABLE],
    ),
)
async def stream_events(request: Request, job_id: str) -> Response:
    """From the first event, or from the one after `Last-Event-ID`, to `end`."""
    state = state_of(request)
    last = parse_last_event_id(request.headers.get("last-event-id"))
    record = await service.find(state.store, job_id, key_of(request).reads)
    if record.ended and last == record.events:
        return Response(status_code=204)
    stream = EventStream(
        state.store,
        record,
        last,
        stopping=state.stopping,
        heartbeat_s=state.settings.sse_heartbeat_s,
        poll_s=state.settings.sse_poll_s,
    )
    return respond(state, stream, key_of(request).owner)


@changes.post(
    "/jobs/{job_id}/cancel",
    summary="Stop a job",
    responses=answers(
        Answer(200, examples.CANCELLING, "Job"),
        errors=[ErrorCode.JOB_NOT_FOUND, ErrorCode.JOB_UNREADABLE, ErrorCode.UNAVAILABLE],
    ),
)
async def cancel_job(request: Request, job_id: str) -> Response:
    """A queued job is cancelled at once; a running one is `cancelling` until its worker has stopped.

    Repeating it changes nothing, and neither does cancelling a job that has ended.
    """
    state = state_of(request)
    job, changed = await service.cancel(state.store, state.docket, job_id, key_of(request).reads)
    if not changed:
        unchanged_by(request)
    return _job_response(job)


@changes.delete(
    "/jobs/{job_id}",
    status_code=204,
    summary="Delete a job that has ended",
    responses=answers(
        Answer(204, None, description="the job, its events and its files are deleted"),
        errors=[ErrorCode.JOB_NOT_FOUND, ErrorCode.JOB_UNREADABLE, ErrorCode.JOB_ACTIVE, ErrorCode.UNAVAILABLE],
    ),
)
async def delete_job(request: Request, job_id: str) -> Response:
    """Removes its record, events, report and artifacts."""
    state = state_of(request)
    await service.delete(state.store, state.settings, job_id, key_of(request).reads)
    with contextlib.suppress(RedisError, OSError):  # the next deletion, or the next start, says it again
        await state.deployments.suspect_disk()
    return Response(status_code=204)
