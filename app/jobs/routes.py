"""/v1/diagnosis: jobs over HTTP."""

import asyncio
import time
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from app.contracts.errors import CATALOGUE, ErrorCode, HemostatError
from app.contracts.job import JobPage, JobStatus
from app.contracts.report import SCHEMA
from app.contracts.reports import REPORT
from app.contracts.requests import JobKind, SubmitRequest
from app.deployments.settle import check_target
from app.jobs import examples, results, service
from app.jobs.diff_routes import links_wanted, place_of
from app.jobs.ids import is_job_id
from app.jobs.parsing import parse_submission
from app.jobs.record import JOBS_PATH, JobRecord
from app.jobs.representation import (
    FORMAT_PARAMETER,
    HTML,
    PAGE_POLICY,
    etag_of,
    media_type_of,
    query_error,
    unchanged,
)
from app.jobs.sending import ArtifactResponse
from app.jobs.sse import EventStream, parse_last_event_id, respond
from app.jobs.store import Filters
from app.jobs.turns import waits_for
from app.openapi import JSON, Answer, answers, reference
from app.state import State, state_of
from app.telemetry.metrics import OTHER
from app.web.job import render_job
from app.web.turn import SETTLE_S

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
    ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    ErrorCode.QUEUE_FULL,
    ErrorCode.UNAVAILABLE,
]

router = APIRouter(prefix="/v1/diagnosis", tags=["diagnosis"], default_response_class=Response)


class ListQuery(BaseModel):
    """Query of the list of jobs."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    after: str | None = Field(default=None, description="show jobs older than this one: `last_id` of a page")
    before: str | None = Field(default=None, description="show the nearest newer ones: `first_id` of a page")
    status: JobStatus | None = None
    kind: JobKind | None = None
    candidate: str | None = Field(default=None, description="alias of the candidate's model")
    metadata: list[str] = Field(default=[], max_length=16, description="`key=value`, may be repeated; all must fit")

    def filters(self) -> Filters:
        """As the store takes them. Raises RequestError for metadata without `=`."""
        pairs = []
        for text in self.metadata:
            key, equals, value = text.partition("=")
            if not key or not equals:
                raise query_error("metadata", "A metadata filter is not key=value.")
            pairs.append((key, value))
        return Filters(self.status, self.kind, self.candidate, tuple(pairs))

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


def _owner(request: Request) -> str:
    return str(request.scope.get("hemostat.owner", ""))


def require_json(request: Request) -> None:
    """Raises HemostatError (UNSUPPORTED_MEDIA_TYPE) for a body that does not say it is JSON in UTF-8."""
    media_type, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.casefold().replace(" ", "").replace('"', "")
    if media_type.strip().casefold() != JSON or ("charset=" in charset and "charset=utf-8" not in charset):
        given = f"{media_type.strip()[:64]!a}" if media_type.strip() else "missing"
        raise HemostatError(
            ErrorCode.UNSUPPORTED_MEDIA_TYPE, f"Content-Type is {given}; the body must be application/json in UTF-8."
        )


@router.post(
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
                "description": "The same key and body give the same job, for a day.",
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
    require_json(request)
    body = await request.body()
    kind = OTHER
    try:
        asked = await asyncio.to_thread(parse_submission, body)
        kind = asked.kind
        del body
        await check_target(state.deployments, asked)
        if asked.dry_run:
            estimate = await service.dry_run(asked, state.settings)
            _count(state, asked, "dry_run")
            return _job_response(estimate)
        key = request.headers.get("idempotency-key")
        hold = await asyncio.to_thread(service.hold_of, _owner(request), key, asked)
        made = await service.submit(state.store, state.docket, asked, state.settings, hold)
    except HemostatError:
        state.telemetry.submitted.labels(kind, "refused").inc()
        raise
    _count(state, asked, "replayed" if made.replayed else "created")
    headers = {"location": f"{JOBS_PATH}/{made.job.id}"}
    if made.replayed:
        headers["idempotency-replayed"] = "true"
    return _job_response(made.job, 202, headers)


def _count(state: State, asked: SubmitRequest, outcome: str) -> None:
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
    """Pages stay put while new jobs come in: a cursor is a job, not an offset."""
    after, before = query.cursor()
    records, more = await state_of(request).store.page(
        after=after, before=before, limit=query.limit, filters=query.filters()
    )
    jobs = tuple(record.job for record in records)
    first, last = (jobs[0].id, jobs[-1].id) if jobs else (None, None)
    return _job_response(JobPage(data=jobs, first_id=first, last_id=last, has_more=more))


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
        Answer(304, None, description="the job is as If-None-Match says"),
        errors=[
            ErrorCode.JOB_NOT_FOUND,
            ErrorCode.JOB_UNREADABLE,
            ErrorCode.INVALID_REQUEST,
            ErrorCode.UNAVAILABLE,
        ],
    ),
)
async def get_job(request: Request, job_id: str) -> Response:
    """Status, progress and, once it has ended, severity or error; a page for what prefers HTML by `Accept`, as a
    browser does, or asks for it by `?format=html`. What accepts neither gets JSON."""
    state = state_of(request)
    media_type = media_type_of(request, otherwise=JSON)
    record = await service.find(state.store, job_id)
    if media_type == HTML:
        return await _page(state, record)
    job = record.job
    etag = etag_of(job.model_dump_json())
    return unchanged(request, etag) or _job_response(job, headers={"etag": etag, "vary": "accept"})


async def _page(state: State, record: JobRecord, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    message = await state.store.latest_message(record.job.id)
    queue = await waits_for(state.store, state.docket, record)
    now = time.time()
    settled = now - record.queued_at >= SETTLE_S
    page = await asyncio.to_thread(lambda: render_job(record.job, message, queue, settled=settled, now=now))
    own = {"vary": "accept", "cache-control": "no-store", "content-security-policy": PAGE_POLICY}
    return Response(page, status_code=status, media_type=HTML, headers=own | (headers or {}))


@router.get(
    "/jobs/{job_id}/queue",
    summary="What a queued job waits for",
    responses=answers(
        Answer(200, examples.QUEUE, "Queue"),
        errors=[ErrorCode.JOB_NOT_FOUND, ErrorCode.JOB_UNREADABLE, ErrorCode.UNAVAILABLE],
    ),
)
async def get_queue(request: Request, job_id: str) -> Response:
    """How many jobs have their turn before it, and the first of them.

    Jobs are taken first come, first served; one that was given back to the queue comes behind those that wait.
    """
    state = state_of(request)
    record = await service.find(state.store, job_id)
    return _job_response(await waits_for(state.store, state.docket, record))


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
        Answer(204, None, description="the client has the last event already: nothing will ever follow"),
        errors=[ErrorCode.JOB_NOT_FOUND, ErrorCode.JOB_UNREADABLE, ErrorCode.INVALID_CURSOR, ErrorCode.UNAVAILABLE],
    ),
)
async def stream_events(request: Request, job_id: str) -> Response:
    """From the first event, or from the one after `Last-Event-ID`, to `end`."""
    state = state_of(request)
    last = parse_last_event_id(request.headers.get("last-event-id"))
    record = await service.find(state.store, job_id)
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
    return respond(state, stream)


@router.post(
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
    return _job_response(await service.cancel(state.store, state.docket, job_id))


@router.delete(
    "/jobs/{job_id}",
    status_code=204,
    summary="Delete a job that has ended",
    responses=answers(
        Answer(204, None, description="the job, its events and its files are gone"),
        errors=[ErrorCode.JOB_NOT_FOUND, ErrorCode.JOB_UNREADABLE, ErrorCode.JOB_ACTIVE, ErrorCode.UNAVAILABLE],
    ),
)
async def delete_job(request: Request, job_id: str) -> Response:
    """Removes its record, events, report and artifacts."""
    state = state_of(request)
    await service.delete(state.store, state.settings, job_id)
    return Response(status_code=204)


@router.get(
    "/jobs/{job_id}/report",
    summary="The verdict",
    openapi_extra={"parameters": [FORMAT_PARAMETER]},
    responses=answers(
        Answer(
            200,
            examples.REPORT_HEAD,
            description="The report (schema: /v1/diagnosis/schemas/report; the example shows its head only)",
            others={HTML: "<!doctype html>…"},
            headers={"ETag": "of this report in this format"},
        ),
        Answer(304, None, description="the client has it already"),
        errors=[
            ErrorCode.JOB_NOT_FOUND,
            ErrorCode.JOB_UNREADABLE,
            ErrorCode.JOB_NOT_FINISHED,
            ErrorCode.ARTIFACT_NOT_FOUND,
            ErrorCode.NOT_ACCEPTABLE,
            ErrorCode.INVALID_REQUEST,
            ErrorCode.UNAVAILABLE,
        ],
        pages=[CATALOGUE[ErrorCode.JOB_NOT_FINISHED].status],
    ),
)
async def get_report(request: Request, job_id: str) -> Response:
    """As JSON, or as a page of one file for people, by `Accept` or `?format=`.

    A browser's page of a compare job leads to the comparison with other jobs; one that a program keeps has no links.
    Before the job has succeeded, a browser's 409 is the job's page, which loads itself again until it is the report.
    """
    state = state_of(request)
    media_type = media_type_of(request)
    record = await service.find(state.store, job_id)
    try:
        results.require_report(record)
    except HemostatError as error:
        if media_type != HTML or not links_wanted(request):
            raise
        retry = {} if error.retry_after_s is None else {"retry-after": str(error.retry_after_s)}
        return await _page(state, record, error.status, retry)
    linked = media_type == HTML and record.job.kind == "compare" and links_wanted(request)
    others = place_of(job_id) if linked else ""
    etag = etag_of(record.job.id, str(record.job.attempt), media_type, others)
    headers = {"etag": etag, "vary": "accept"}
    known = unchanged(request, etag)
    if known is not None:
        return known
    async with service.told_of_deleted(state.store, [job_id]):
        text = await asyncio.to_thread(results.read_report, record, state.settings)
    if media_type == JSON:
        return Response(text, media_type=JSON, headers=headers)
    page = await asyncio.to_thread(lambda: results.render_report(text, others=others))
    return Response(page, media_type=HTML, headers=headers | {"content-security-policy": PAGE_POLICY})


@router.get(
    "/jobs/{job_id}/artifacts",
    summary="Files of a job that succeeded",
    responses=answers(
        Answer(200, examples.ARTIFACTS),
        errors=[ErrorCode.JOB_NOT_FOUND, ErrorCode.JOB_UNREADABLE, ErrorCode.JOB_NOT_FINISHED, ErrorCode.UNAVAILABLE],
    ),
)
async def list_artifacts(request: Request, job_id: str) -> Response:
    """Among them the values of each token, so that two reports can be compared token by token."""
    state = state_of(request)
    record = await service.find(state.store, job_id)
    found = await asyncio.to_thread(results.artifacts, record, state.settings)
    if len(found) < len(record.job.artifacts):
        await service.find(state.store, job_id)  # deleted meanwhile?
    data = [
        {
            "name": artifact.name,
            "object": "diagnosis.artifact",
            "bytes": artifact.state.st_size,
            "media_type": artifact.media_type,
            "url": f"{JOBS_PATH}/{job_id}/artifacts/{artifact.name}",
        }
        for artifact in found
    ]
    return JSONResponse({"object": "list", "data": data})


@router.get(
    "/jobs/{job_id}/artifacts/{name}",
    summary="One file",
    responses=answers(
        Answer(200, "(the file's bytes)", media_type="application/octet-stream", description="the file"),
        errors=[
            ErrorCode.JOB_NOT_FOUND,
            ErrorCode.JOB_UNREADABLE,
            ErrorCode.JOB_NOT_FINISHED,
            ErrorCode.ARTIFACT_NOT_FOUND,
            ErrorCode.UNAVAILABLE,
        ],
    ),
)
async def get_artifact(request: Request, job_id: str, name: str) -> Response:
    """By a name of the list."""
    state = state_of(request)
    record = await service.find(state.store, job_id)
    async with service.told_of_deleted(state.store, [job_id]):
        found = await asyncio.to_thread(results.artifact, record, state.settings, name)
    return ArtifactResponse(state.store, job_id, found)


@router.get(
    "/schemas/report",
    summary="JSON schema of a report",
    responses=answers(Answer(200, {"$id": SCHEMA, "type": "object"}), errors=[]),
)
async def report_schema() -> Response:
    """What every report of this version validates against."""
    return JSONResponse(_report_schema())


def _report_schema() -> dict[str, Any]:
    schema = REPORT.json_schema(mode="serialization", by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA} | schema
