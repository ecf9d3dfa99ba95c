"""/v1/diagnosis: what a job that succeeded leaves, over HTTP: report, artifacts, and the schema of a report."""

import asyncio
import json
from functools import cache

from fastapi import APIRouter, Depends, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import Message, Receive, Send
from starlette.types import Scope as Connection

from app.contracts.errors import CATALOGUE, ErrorCode, HemostatError
from app.contracts.report import SCHEMA
from app.jobs import examples, results, service
from app.jobs.negotiation import preferred
from app.jobs.page import page_of
from app.jobs.record import JOBS_PATH
from app.jobs.representation import FORMAT_PARAMETER, HTML, PAGE_POLICY, etag_of, media_type_of, unchanged
from app.jobs.store import JobStore
from app.kinds.registry import reports
from app.openapi import JSON, Answer, answers
from app.security.scopes import Needs, Scope, key_of
from app.state import state_of

router = APIRouter(
    prefix="/v1/diagnosis",
    tags=["diagnosis"],
    default_response_class=Response,
    dependencies=[Depends(Needs(Scope.READ))],
)


class ArtifactResponse(FileResponse):
    """The file, whole or in ranges. Nothing is sent before it is open: one that was deleted meanwhile is refused, not
    cut off."""

    def __init__(self, store: JobStore, job_id: str, artifact: results.Artifact) -> None:
        super().__init__(
            artifact.path, media_type=artifact.media_type, filename=artifact.name, stat_result=artifact.state
        )
        self._store = store
        self._job_id = job_id

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Sends it. Raises JOB_NOT_FOUND, or ARTIFACT_NOT_FOUND if the job is there and its file is gone."""
        start: list[Message] = []

        async def send_opened(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.append(message)
                return
            while start:
                await send(start.pop())
            await send(message)

        async with service.told_of_deleted(self._store, [self._job_id]):
            try:
                await super().__call__(scope, receive, send_opened)
            except FileNotFoundError:
                raise results.gone("artifact") from None


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
    """As JSON, or as an HTML page in one file, by `Accept` or `?format=`.

    Until the job succeeds, a browser gets 409 with the job's page, which reloads itself until the report is there.
    """
    state = state_of(request)
    media_type = media_type_of(request)
    owner = key_of(request).reads
    record = await service.find(state.store, job_id, owner)
    try:
        results.require_report(record)
    except HemostatError as error:
        if media_type != HTML or preferred(request.headers.get("accept"), (JSON, HTML)) != HTML:
            raise
        retry = {} if error.retry_after_s is None else {"retry-after": str(error.retry_after_s)}
        return await page_of(state, record, owner, error.status, retry)
    etag = etag_of(record.job.id, str(record.job.attempt), media_type)
    headers = {"etag": etag, "vary": "accept"}
    known = unchanged(request, etag)
    if known is not None:
        return known
    async with service.told_of_deleted(state.store, [job_id]):
        text = await asyncio.to_thread(results.read_report, record, state.settings)
    if media_type == JSON:
        return Response(text, media_type=JSON, headers=headers)
    page = await asyncio.to_thread(results.render_report, text)
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
    owner = key_of(request).reads
    record = await service.find(state.store, job_id, owner)
    found = await asyncio.to_thread(results.artifacts, record, state.settings)
    if len(found) < len(record.job.artifacts):
        await service.find(state.store, job_id, owner)  # deleted meanwhile?
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
    owner = key_of(request).reads
    record = await service.find(state.store, job_id, owner)
    async with service.told_of_deleted(state.store, [job_id]):
        found = await asyncio.to_thread(results.artifact, record, state.settings, name)
    return ArtifactResponse(state.store, job_id, found)


@router.get(
    "/schemas/report",
    summary="JSON schema of a report",
    responses=answers(Answer(200, {"$id": SCHEMA, "type": "object"}), errors=[]),
)
async def report_schema() -> Response:
    """Every report of this version is valid against it."""
    return Response(await asyncio.to_thread(_report_schema), media_type=JSON)


@cache
def _report_schema() -> bytes:
    schema = reports().json_schema(mode="serialization", by_alias=True)
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA} | schema).encode()
