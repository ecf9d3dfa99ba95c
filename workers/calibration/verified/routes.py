"""The verify process' HTTP door, for the gateway alone: `POST /v1/verified` answers one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from app.contracts.errors import HemostatError
from app.deployments.secret import SecretGuard
from workers.calibration.verified.requests import ClosedError, FullError, RequestQueue, Ticket, VerifiedRequest

MAX_BODY_BYTES = 32 * 1024 * 1024


_OPEN = frozenset({"/livez", "/metrics"})


def make_app(
    queue: Callable[[], RequestQueue | None], why_not: Callable[[], str], registry: CollectorRegistry, secret: str = ""
) -> Starlette:
    """The application. `queue` is None while nothing can be verified; `why_not` says why. `secret`: the internal one,
    that all but the counters ask for; "" on loopback."""

    async def verified(request: Request) -> Response:
        open_queue = queue()
        if open_queue is None:
            return JSONResponse({"reason": why_not()}, 501)
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY_BYTES:
                return JSONResponse({"detail": "the body is too large"}, 413)
        try:
            ticket = open_queue.submit(VerifiedRequest.model_validate_json(body))
        except ClosedError:
            return JSONResponse({"reason": why_not()}, 501)
        except (ValidationError, HemostatError, ValueError, FullError) as error:
            return _refusal(error)
        return StreamingResponse(_lines(ticket), media_type="application/x-ndjson")

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def live(_: Request) -> Response:
        return PlainTextResponse("ok")

    return Starlette(
        routes=[
            Route("/v1/verified", verified, methods=["POST"]),
            Route("/metrics", metrics),
            Route("/livez", live),
        ],
        middleware=[Middleware(SecretGuard, secret=secret, without=_OPEN)],
    )


def _refusal(error: Exception) -> Response:
    """Why a request is not taken. Never holds what was sent."""
    if isinstance(error, FullError):
        return JSONResponse({"reason": "as many requests as it takes are being verified"}, 503, {"Retry-After": "2"})
    if isinstance(error, HemostatError):
        return JSONResponse({"detail": error.detail, "code": error.code}, error.status)
    if isinstance(error, ValidationError):
        faults = error.errors(include_input=False, include_url=False)
        return JSONResponse({"detail": "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in faults)}, 400)
    return JSONResponse({"detail": str(error)}, 400)


async def _lines(ticket: Ticket) -> AsyncIterator[bytes]:
    """Until the end, an error, or anyone who listens has gone: then the request is dropped between two rounds."""
    try:
        while True:
            line: dict[str, Any] = await ticket.lines.get()
            yield json.dumps(line).encode() + b"\n"
            if "finish_reason" in line or "error" in line:
                return
    finally:
        ticket.dropped.set()
