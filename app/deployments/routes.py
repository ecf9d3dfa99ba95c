"""/v1/deployments: what is served, over HTTP."""

from collections.abc import Iterable
from functools import partial
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from app.contracts.deployment import (
    CalibrationMode,
    Deployment,
    DeploymentEventPage,
    DeploymentList,
    DeploymentPatch,
    DeploymentRequest,
    NumberedEvent,
    PromoteRequest,
    RollbackRequest,
)
from app.contracts.errors import ErrorCode, HemostatError
from app.deployments import examples, service
from app.deployments.sse import DeploymentStream
from app.deployments.store import is_deployment_id
from app.jobs.negotiation import preferred
from app.jobs.parsing import parse_body
from app.jobs.routes import SUBMIT_ERRORS, require_json
from app.jobs.sse import MAX_NUMBER, parse_last_event_id, respond
from app.openapi import JSON, Answer, answers, reference
from app.security.audit import unchanged_by
from app.security.scopes import Needs, Scope, key_of
from app.state import parsed, state_of

PATH: Final = "/v1/deployments"
EVENT_STREAM: Final = "text/event-stream"

_READ: Final = [ErrorCode.DEPLOYMENT_NOT_FOUND, ErrorCode.UNAVAILABLE]
_CHANGE: Final = [*_READ, ErrorCode.DEPLOYMENT_CONFLICT]
_BODY: Final = [
    ErrorCode.INVALID_JSON,
    ErrorCode.INVALID_REQUEST,
    ErrorCode.UNKNOWN_FIELD,
    ErrorCode.BODY_TOO_LARGE,
    ErrorCode.BODY_TOO_SLOW,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE,
]
_PROFILE: Final = [ErrorCode.PROFILE_NOT_FOUND, ErrorCode.PROFILE_MISMATCH, ErrorCode.PROFILE_CORRUPT]
_REPAIR: Final = [
    ErrorCode.JOB_NOT_FOUND,
    ErrorCode.JOB_NOT_FINISHED,
    ErrorCode.JOB_UNREADABLE,
    ErrorCode.ARTIFACT_NOT_FOUND,
    ErrorCode.PACKING_UNSUPPORTED,
]
_CREATE_ERRORS: Final = [
    code
    for code in SUBMIT_ERRORS
    if code not in {ErrorCode.QUEUE_FULL, ErrorCode.UNKNOWN_KIND, ErrorCode.TEXT_NOT_FOUND}
    and not code.value.startswith("document_")
] + [ErrorCode.DEPLOYMENT_EXISTS, ErrorCode.DEPLOYMENT_CONFLICT, *_PROFILE]

router = APIRouter(tags=["deployments"], default_response_class=Response, dependencies=[Depends(Needs(Scope.READ))])
changes = APIRouter(tags=["deployments"], default_response_class=Response, dependencies=[Depends(Needs(Scope.DEPLOY))])
scraped = APIRouter(tags=["service"], default_response_class=Response, dependencies=[Depends(Needs(Scope.METRICS))])


def targets_of(deployments: Iterable[Deployment]) -> list[dict[str, Any]]:
    """A target group a URL, with the labels `deployment` and `role`; the path and scheme by Prometheus' own labels."""
    groups = []
    for deployment in deployments:
        for replica in deployment.running:
            for url in replica.metrics_urls:
                parts = urlsplit(url)
                if parts.scheme not in {"http", "https"} or not parts.netloc:
                    continue
                labels = {
                    "__scheme__": parts.scheme,
                    "__metrics_path__": parts.path or "/metrics",
                    "deployment": deployment.name,
                    "role": replica.role,
                }
                groups.append({"targets": [parts.netloc], "labels": labels})
    return groups


def _body(model: str, example: Any, *, required: bool = True) -> dict[str, Any]:
    return {"requestBody": {"required": required, "content": {JSON: {"schema": reference(model), "example": example}}}}


def _answer(deployment: Deployment, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(deployment.model_dump_json(), status_code=status, headers=headers, media_type=JSON)


async def _before(request: Request, deployment: str) -> Deployment:
    return await state_of(request).deployments.get(deployment)


def _changed(request: Request, before: Deployment, after: Deployment, status: int = 200) -> Response:
    if after.updated_at == before.updated_at:
        unchanged_by(request)
    return _answer(after, status)


@changes.post(
    PATH,
    status_code=201,
    summary="Serve a model",
    openapi_extra=_body("DeploymentRequest", examples.REQUEST)
    | {
        "parameters": [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "description": "The same key and body give the same deployment, as long as it exists.",
                "schema": {"type": "string", "maxLength": 255},
            }
        ]
    },
    responses=answers(
        Answer(
            201,
            examples.STARTING,
            "Deployment",
            headers={
                "Location": "the deployment's URL",
                "Idempotency-Replayed": "true where an earlier request had made it",
            },
        ),
        errors=[*_CREATE_ERRORS, *_REPAIR, ErrorCode.DEPLOYMENT_NOT_FOUND],
    ),
)
async def create_deployment(request: Request) -> Response:
    """Checks model, recipe, reference, profile and memory shares, then makes the deployment.

    `hemostat serve` starts its processes. It serves at once, with identity, while its profile is fitted.
    """
    require_json(request)
    asked = await parsed(request, partial(parse_body, contract=DeploymentRequest))
    key = key_of(request)
    made = await service.create(
        state_of(request), asked, key.owner, request.headers.get("idempotency-key"), reads=key.reads
    )
    headers = {"location": f"{PATH}/{made.deployment.id}"}
    if made.replayed:
        unchanged_by(request)
        headers["idempotency-replayed"] = "true"
    return _answer(made.deployment, 201, headers)


@router.get(
    PATH,
    summary="List deployments, oldest first",
    responses=answers(Answer(200, examples.LIST, "DeploymentList"), errors=[ErrorCode.UNAVAILABLE]),
)
async def list_deployments(request: Request) -> Response:
    """Each with its state, its replicas and what its shadow process last found."""
    page = DeploymentList(data=tuple(await state_of(request).deployments.list()))
    return Response(page.model_dump_json(), media_type=JSON)


@router.get(
    PATH + "/{deployment}",
    summary="One deployment",
    responses=answers(Answer(200, examples.READY, "Deployment"), errors=_READ),
)
async def get_deployment(request: Request, deployment: str) -> Response:
    """By name or id."""
    return _answer(await state_of(request).deployments.get(deployment))


@changes.patch(
    PATH + "/{deployment}",
    summary="Change a deployment while it runs",
    openapi_extra=_body("DeploymentPatch", examples.PATCH),
    responses=answers(Answer(200, examples.SCALED, "Deployment"), errors=[*_CHANGE, *_BODY]),
)
async def change_deployment(request: Request, deployment: str) -> Response:
    """A field that is left out stays. `drift_threshold` may be null: then it follows the served profile."""
    require_json(request)
    change = await parsed(request, partial(parse_body, contract=DeploymentPatch))
    before = await _before(request, deployment)
    return _changed(request, before, await service.patch(state_of(request), deployment, change))


@changes.delete(
    PATH + "/{deployment}",
    status_code=202,
    summary="Stop serving",
    responses=answers(
        Answer(
            202, examples.DRAINING, "Deployment", description=("its processes finish their answers, then it is deleted")
        ),
        Answer(204, None, description="nothing of it ran: it is deleted"),
        errors=_READ,
    ),
)
async def delete_deployment(request: Request, deployment: str) -> Response:
    """Its replicas finish their answers and end, then it is deleted. Profiles stay."""
    before = await _before(request, deployment)
    left = await service.delete(state_of(request), deployment)
    return Response(status_code=204) if left is None else _changed(request, before, left, 202)


@changes.post(
    PATH + "/{deployment}/promote",
    summary="Serve this calibration version",
    openapi_extra=_body("PromoteRequest", examples.PROMOTE),
    responses=answers(Answer(200, examples.READY, "Deployment"), errors=[*_CHANGE, *_BODY, *_PROFILE]),
)
async def promote_version(request: Request, deployment: str) -> Response:
    """By hand: without a trial, also if the deployment is frozen. Running requests end with the version that they began
    with."""
    require_json(request)
    asked = await parsed(request, partial(parse_body, contract=PromoteRequest))
    before = await _before(request, deployment)
    return _changed(request, before, await service.promote(state_of(request), deployment, asked))


@changes.post(
    PATH + "/{deployment}/rollback",
    summary="Go back to the previous calibration version",
    openapi_extra=_body("RollbackRequest", examples.ROLLBACK, required=False),
    responses=answers(Answer(200, examples.ROLLED_BACK, "Deployment"), errors=[*_CHANGE, *_BODY, *_PROFILE]),
)
async def roll_back(request: Request, deployment: str) -> Response:
    """To the version before, else to identity, or to the one that is named."""
    asked = await parsed(request, lambda body: _rollback(request, body))
    before = await _before(request, deployment)
    return _changed(request, before, await service.rollback(state_of(request), deployment, asked))


def _rollback(request: Request, body: bytes) -> RollbackRequest:
    if not body:
        return RollbackRequest()
    require_json(request)
    return parse_body(body, RollbackRequest)


@changes.post(
    PATH + "/{deployment}/freeze",
    summary="Keep the active calibration version",
    responses=answers(Answer(200, examples.FROZEN, "Deployment"), errors=_CHANGE),
)
async def freeze(request: Request, deployment: str) -> Response:
    """The service no longer promotes or rolls back; a person still can. Repeating it changes nothing."""
    before = await _before(request, deployment)
    return _changed(request, before, await service.freeze(state_of(request), deployment))


@changes.post(
    PATH + "/{deployment}/unfreeze",
    summary="Let the service promote and roll back again",
    responses=answers(Answer(200, examples.READY, "Deployment"), errors=_CHANGE),
)
async def unfreeze(request: Request, deployment: str) -> Response:
    """Calibration is `auto` again. If it is `off`, it stays off: set `calibration` instead."""
    before = current = await _before(request, deployment)
    if current.calibration is CalibrationMode.FROZEN:
        auto = DeploymentPatch(calibration=CalibrationMode.AUTO)
        current = await service.patch(state_of(request), current.id, auto)
    return _changed(request, before, current)


class EventsQuery(BaseModel):
    """Query of a page of events."""

    model_config = ConfigDict(extra="forbid")

    after: Annotated[int, Field(ge=0, le=MAX_NUMBER)] = 0
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


@router.get(
    PATH + "/{deployment}/events",
    summary="What happened to a deployment: a page, or a stream (server-sent events)",
    openapi_extra={
        "parameters": [
            {
                "name": "Last-Event-ID",
                "in": "header",
                "required": False,
                "description": "Of a stream: id of the last event that the client has.",
                "schema": {"type": "string"},
            }
        ]
    },
    responses=answers(
        Answer(
            200,
            examples.EVENT_PAGE,
            "DeploymentEventPage",
            description=(
                "A page, oldest first. With `Accept: text/event-stream`: a stream until `deleted`, whose `data` has "
                "the schema `DeploymentEvent`"
            ),
            others={EVENT_STREAM: examples.EVENTS},
        ),
        Answer(204, None, description="of a stream: the deployment is deleted, and the client has its last event"),
        errors=[
            *_READ,
            ErrorCode.INVALID_CURSOR,
            ErrorCode.INVALID_REQUEST,
            ErrorCode.UNKNOWN_FIELD,
            ErrorCode.NOT_ACCEPTABLE,
            ErrorCode.RATE_LIMITED,
        ],
    ),
)
async def deployment_events(request: Request, deployment: str, query: Annotated[EventsQuery, Query()]) -> Response:
    """The newest 2,000 events are kept. Those of a deleted deployment are kept for an hour, by its id."""
    state = state_of(request)
    wanted = preferred(request.headers.get("accept"), (JSON, EVENT_STREAM))
    if wanted is None:
        raise HemostatError(ErrorCode.NOT_ACCEPTABLE, "Events come as application/json and as text/event-stream.")
    last = parse_last_event_id(request.headers.get("last-event-id"))
    store = state.deployments
    newest = await store.last_event(deployment) if is_deployment_id(deployment) else 0
    deployment_id = deployment if newest else await store.resolve(deployment)
    newest = newest or await store.last_event(deployment_id)
    if wanted == EVENT_STREAM:
        after = last or query.after
        if after == newest > 0 and not await store.exists(deployment_id):
            return Response(status_code=204)  # `deleted` was sent; an EventSource comes back without a 204
        return respond(state, DeploymentStream(state, deployment_id, after, newest), key_of(request).owner)
    found = await store.events(deployment_id, query.after, count=query.limit + 1)
    shown = tuple(NumberedEvent(id=number, **event.model_dump()) for number, event in found[: query.limit])
    page = DeploymentEventPage(
        data=shown,
        last_id=shown[-1].id if shown else query.after,
        has_more=len(found) > query.limit,
    )
    return Response(page.model_dump_json(), media_type=JSON)


@scraped.get(
    "/metrics/targets",
    summary="Serving processes for Prometheus (HTTP service discovery)",
    responses=answers(Answer(200, examples.TARGETS), errors=[ErrorCode.UNAVAILABLE]),
)
async def metrics_targets(request: Request) -> Response:
    """Processes with a valid lease. Prometheus keeps the last list while this answers 503."""
    return JSONResponse(targets_of(await state_of(request).deployments.list()))
