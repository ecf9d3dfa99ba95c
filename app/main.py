"""The front end's application and process."""

import asyncio
import contextlib
import logging
import resource
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn
from fastapi import APIRouter, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route

from app import home, openapi, problems
from app.bodies import Bodies
from app.contracts.errors import ErrorCode, HemostatError
from app.deployments import profile_routes
from app.deployments import routes as deployment_routes
from app.deployments import service as deployment_service
from app.deployments.store import DeploymentStore
from app.error_guide import explained
from app.gateway import routes as gateway_routes
from app.jobs import diff_routes, files, queue, reconcile, report_routes, routes
from app.jobs.connection import connect
from app.jobs.differences import Differences
from app.jobs.faults import Schema, value_fault
from app.jobs.store import JobStore
from app.models.nearest import nearest, suggestion
from app.openapi import Answer, answers
from app.protocol import MAX_CONNECTIONS, BoundedProtocol
from app.secrets import hide_memory
from app.security.audit import Audit
from app.security.keys import check_binding
from app.security.limits import TokenBuckets
from app.security.middleware import Authentication, BodyLimit, HostGuard, RateLimit
from app.security.scopes import Needs, check_routes
from app.settings import Settings
from app.state import State
from app.telemetry import health
from app.telemetry.http import RequestContext
from app.telemetry.metrics import Telemetry

logger = logging.getLogger(__name__)
_EVENTS = deployment_routes.PATH + "/{deployment}/events"
_QUERIES: dict[str, type[BaseModel]] = {_EVENTS: deployment_routes.EventsQuery, diff_routes.PATH: diff_routes.DiffQuery}

pages = APIRouter(tags=["service"], default_response_class=Response, dependencies=[Depends(Needs(None))])


@pages.get(
    "/errors/{code}",
    summary="What an error code means",
    responses=answers(
        Answer(
            200,
            {"code": "queue_full", "title": "Too many jobs are waiting", "status": 429, "hint": "Wait …"},
        ),
        errors=[ErrorCode.NOT_FOUND],
    ),
)
async def explain_error(code: str) -> Response:
    """The `type` of a problem document links here."""
    return JSONResponse(explained(code))


def create_app(settings: Settings) -> FastAPI:
    """The application. Connects to Redis when it first needs it: it starts, and says so, where Redis is away.

    Raises `app.security.keys.KeyFileError` if the settings would expose it without keys.
    """
    keys = check_binding(settings)
    telemetry = Telemetry()
    if keys is not None:
        telemetry.key_faults.set_function(keys.faults)
    redis = connect(settings, retries=1)  # enough for a connection that broke; a request must not wait for more
    state = State(
        settings=settings,
        telemetry=telemetry,
        redis=redis,
        store=JobStore(redis, settings),
        deployments=DeploymentStore(redis, settings),
        docket=queue.make_docket(settings),
        keys=keys,
        stopping=asyncio.Event(),
        differences=Differences(settings),
        tokens=None if keys is None else TokenBuckets(settings.owner_tokens_per_minute),
        bodies=Bodies(at_once=4),
    )
    guards = [
        Middleware(RequestContext, telemetry=telemetry),
        Middleware(Audit, home=settings.home),
        *([] if keys is not None else [Middleware(HostGuard, host=settings.host)]),
        Middleware(Authentication, keys=keys),
        Middleware(RateLimit, requests=TokenBuckets(settings.requests_per_minute), tokens=state.tokens),
        Middleware(BodyLimit, limit=settings.max_body_bytes),
    ]
    app = FastAPI(
        title="Hemostat",
        lifespan=_lifespan,
        middleware=guards,
        openapi_url=None,  # `openapi.install` adds it
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={
            HemostatError: _on_hemostat_error,
            HTTPException: _on_http_exception,
            RequestValidationError: _on_query_error,
            RedisError: _on_redis_error,
            ClientDisconnect: _on_client_left,
        },
    )
    app.state.hemostat = state
    app.include_router(home.router)
    app.include_router(health.router)
    app.include_router(routes.router)
    app.include_router(routes.changes)
    app.include_router(report_routes.router)
    app.include_router(diff_routes.router)
    app.include_router(deployment_routes.router)
    app.include_router(deployment_routes.changes)
    app.include_router(deployment_routes.scraped)
    app.include_router(profile_routes.router)
    app.include_router(profile_routes.changes)
    app.include_router(gateway_routes.router)
    app.include_router(pages)
    check_routes(app.routes)
    openapi.install(app)
    return app


# --- errors


async def _on_hemostat_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HemostatError)  # noqa: S101 - registered for it
    unread = error.code in {ErrorCode.BODY_TOO_LARGE, ErrorCode.BODY_TOO_SLOW}
    return problems.response(request.scope, error, headers={"connection": "close"} if unread else None)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """What the router refuses: no such route, no such method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers = {"Allow": ", ".join(_methods(request))}
        answer = HemostatError(
            ErrorCode.METHOD_NOT_ALLOWED, "The route does not take this method.", hint=f"Use {headers['Allow']}."
        )
        return problems.response(request.scope, answer, headers=headers)
    if error.status_code == 404:
        paths = [route.path for route in request.app.routes if hasattr(route, "path")]
        near = nearest(request.url.path, paths)
        answer = HemostatError(
            ErrorCode.NOT_FOUND, "There is no such route.", hint=f"Did you mean {near}?" if near else ""
        )
        return problems.response(request.scope, answer, headers=headers)
    answer = HemostatError(ErrorCode.INVALID_REQUEST, "The request cannot be read.")
    return problems.response(request.scope, answer, headers=headers)


def _methods(request: Request) -> list[str]:
    """Methods of every route of this path; the router's own Allow header names those of one route."""
    found: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods or set()
    return sorted(found)


async def _on_query_error(request: Request, error: Exception) -> Response:
    """Faults of the query, in the same shape as those of a body."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it
    query = _QUERIES.get(getattr(request.scope.get("route"), "path", ""), routes.ListQuery)
    schema = Schema(query.model_json_schema())
    valid = sorted(query.model_fields)
    parts = []
    for detail in error.errors():
        name = str(detail["loc"][1]) if len(detail["loc"]) > 1 else ""
        if detail["type"] == "extra_forbidden":
            parts.append(
                problems.FieldError(
                    ErrorCode.UNKNOWN_FIELD,
                    f"There is no query parameter {name[:64]!a}.",
                    suggestion(name, valid),
                    parameter=name[:64],
                )
            )
        else:
            what, hint = value_fault(detail, name, schema.place((name,)).node)
            parts.append(problems.FieldError(ErrorCode.INVALID_REQUEST, what, hint, parameter=name))
    return problems.response(request.scope, problems.RequestError(parts))


async def _on_redis_error(request: Request, error: Exception) -> Response:
    """503 where waiting helps; anything else is a fault of ours."""
    assert isinstance(error, RedisError)  # noqa: S101 - registered for it
    if not problems.redis_is_away(error):
        raise error
    logger.warning("request %s: Redis: %s", problems.request_id(request.scope), type(error).__name__)
    return problems.response(request.scope, problems.unavailable(what=problems.redis_fault(error)))


async def _on_client_left(_request: Request, _error: Exception) -> Response:
    """No one reads it: what left in the middle of its body is no fault of ours."""
    return Response(status_code=499)


# --- life


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state: State = app.state.hemostat
    state.stopping.clear()
    with _told_to_go(state.stopping):
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(state.redis.aclose)
            await stack.enter_async_context(state.docket)
            sweeper = asyncio.create_task(_sweep(state), name="reconcile")
            settling = asyncio.create_task(deployment_service.run(state), name="deployments")
            tidying = asyncio.create_task(deployment_service.keep_tidy(state), name="disk")
            try:
                yield
            finally:
                state.stopping.set()
                for task in (sweeper, settling, tidying):
                    task.cancel()
                await asyncio.gather(sweeper, settling, tidying, return_exceptions=True)


async def _sweep(state: State) -> None:
    async def wait(seconds: float) -> bool:
        try:
            await asyncio.wait_for(state.stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def remove_files(job_id: str) -> None:
        files.remove(state.settings, job_id)

    await reconcile.run(state.store, state.docket, state.settings, remove_files, wait)


@contextlib.contextmanager
def _told_to_go(stopping: asyncio.Event) -> Iterator[None]:
    """Sets `stopping` at SIGTERM or SIGINT, before the server's own handler.

    The server waits for open connections before it ends the lifespan, and an event stream ends only when it knows.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, Any] = {}

    def handler_of(number: signal.Signals) -> Callable[[int, FrameType | None], None]:
        def handle(received: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(stopping.set)
            inner = before[number]
            if callable(inner):
                inner(received, frame)

        return handle

    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.getsignal(number)
        signal.signal(number, handler_of(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def serve(settings: Settings, *, listener: socket.socket | None = None) -> None:
    """Runs the API in this process until SIGTERM or SIGINT. `listener`: a bound socket to use instead of host:port."""
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("docket.strikelist").setLevel(logging.ERROR)  # says once a second that Redis is away
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 4 * MAX_CONNECTIONS), hard), hard))
    hide_memory()
    config = uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        access_log=False,  # ours has no paths of the client's
        log_config=None,
        lifespan="on",
        server_header=False,
        date_header=True,
        proxy_headers=False,  # what X-Forwarded-For says would choose the bucket of the rate limit
        timeout_graceful_shutdown=max(1, int(settings.drain_s)),
        http=BoundedProtocol,
        ws="none",
    )
    uvicorn.Server(config).run(sockets=[listener] if listener is not None else None)


if __name__ == "__main__":
    serve(Settings())
