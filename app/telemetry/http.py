"""The outermost middleware: request ids, metrics, the access log, and the answer to what no one expected. Pure ASGI."""

import asyncio
import logging
import time
import traceback
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import problems
from app.contracts.errors import ErrorCode, HemostatError
from app.security.scopes import KEY, Key
from app.telemetry.metrics import METHODS, OTHER, UNMATCHED, Telemetry

logger = logging.getLogger("hemostat.http")

EVENT_STREAM = "text/event-stream"
STOPPED_RETRY_S = 5


def trace(error: BaseException | None) -> str:
    """Where an exception came from, with its causes: types and lines, no messages, because they may quote a client."""
    parts = []
    while error is not None:
        parts.append("".join(traceback.format_tb(error.__traceback__)) + type(error).__name__)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(parts)


class RequestContext:
    """Gives each request an id (the client's `x-request-id` where it is well-formed) and accounts for it.

    The log has method, route template, status, duration and the key's owner and id: no path, query or body of the
    client's.
    """

    def __init__(self, app: ASGIApp, *, telemetry: Telemetry) -> None:
        self.app = app
        self.telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on with an id; turns an unexpected exception into a 500 that shows nothing of the inside."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if problems.REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope["hemostat.request_id"] = request_id
        status = 0
        stream = False
        began = time.perf_counter()

        async def tagged(message: Message) -> None:
            nonlocal status, stream
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers.setdefault("x-content-type-options", "nosniff")
                headers.setdefault("cache-control", "no-store")
                stream = headers.get("content-type", "").startswith(EVENT_STREAM)
            await send(message)

        with self.telemetry.in_flight.track_inprogress():
            try:
                await self.app(scope, receive, tagged)
            except asyncio.CancelledError:  # the service stops, and the time that its requests have is over
                if status:
                    raise
                answer = HemostatError(ErrorCode.UNAVAILABLE, "The service stops.", retry_after_s=STOPPED_RETRY_S)
                await problems.response(scope, answer)(scope, receive, tagged)
            except Exception as error:
                if status:  # too late for another answer: the server must cut the connection
                    logger.error("request %s broke off\n%s", request_id, trace(error))  # noqa: TRY400
                    raise
                logger.error("request %s failed\n%s", request_id, trace(error))  # noqa: TRY400
                answer = HemostatError(ErrorCode.INTERNAL, "The service failed unexpectedly.")
                await problems.response(scope, answer)(scope, receive, tagged)
            finally:
                self._account(scope, status, stream, time.perf_counter() - began)

    def _account(self, scope: Scope, status: int, stream: bool, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or UNMATCHED
        method = scope["method"] if scope["method"] in METHODS else OTHER
        self.telemetry.requests.labels(route, method, str(status or 499)).inc()
        key: Key | None = scope.get(KEY)
        if key is not None and key.owner:
            self.telemetry.owner_requests.labels(key.owner, str(status or 499)).inc()
        if not stream:
            self.telemetry.latency.labels(route, method).observe(seconds)
        level = logging.DEBUG if route == "/livez" else logging.INFO  # the watchdog asks every few seconds
        logger.log(
            level,
            "%s %s %d %.1f ms %s %s",
            *(method, route, status or 499, seconds * 1000, scope["hemostat.request_id"]),
            f"{key.owner}:{key.id}" if key is not None and key.owner else "-",
        )
