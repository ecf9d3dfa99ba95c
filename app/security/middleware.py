"""The guards before the routes, each a pure ASGI middleware that answers with a problem document."""

from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import problems
from app.contracts.errors import ErrorCode, HemostatError
from app.security.keys import KeyRing, is_loopback
from app.security.limits import TokenBuckets

# Probes: they tell nothing but whether the service is well, and an orchestrator has no key.
OPEN_PATHS: Final = frozenset({"/livez", "/readyz"})
# A limit must not blind whoever watches the service.
UNLIMITED_PATHS: Final = OPEN_PATHS | {"/metrics"}


class HostGuard:
    """On a service without keys, refuses requests that a foreign web page sent through a visitor's browser.

    Such a page can resolve its own name to 127.0.0.1 (DNS rebinding), or post to this address without asking. The Host
    header gives away the former, the Origin header the latter.
    """

    def __init__(self, app: ASGIApp, *, host: str) -> None:
        self.app = app
        self.host = host.casefold().strip("[]")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on what is addressed to this machine."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if not self._ours(f"//{headers.get('host', '')}") or (origin is not None and not self._ours(origin)):
                error = HemostatError(ErrorCode.HOST_NOT_ALLOWED, "The Host or Origin header names another machine.")
                await problems.response(scope, error)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _ours(self, url: str) -> bool:
        try:
            name = urlsplit(url).hostname or ""
        except ValueError:
            return False
        return name == self.host or is_loopback(name)


class Authentication:
    """Where keys are set, lets through only requests with one of them; everything is denied by default."""

    def __init__(self, app: ASGIApp, *, keys: KeyRing | None) -> None:
        self.app = app
        self.keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Names the key's owner in the scope, or answers 401."""
        if scope["type"] == "lifespan" or self.keys is None:
            await self.app(scope, receive, send)
            return
        scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
        # Bytes, as they were sent: the digest is that of the key's UTF-8, and U+00A0 at its end is no space.
        sent = key.encode("latin-1").strip(b" \t").decode("utf-8", "surrogateescape")
        owner = self.keys.owner(sent) if scheme.casefold() == "bearer" else None
        if owner is None and scope.get("path") in OPEN_PATHS:
            await self.app(scope, receive, send)
            return
        if owner is None:
            detail = "The API key is not valid." if key else "The request has no API key."
            await problems.response(scope, HemostatError(ErrorCode.UNAUTHORIZED, detail))(scope, receive, send)
            return
        scope["hemostat.owner"] = owner
        await self.app(scope, receive, send)


class RateLimit:
    """At most so many requests a minute from one key, or without keys from one address."""

    def __init__(self, app: ASGIApp, *, per_minute: int) -> None:
        self.app = app
        self.per_minute = per_minute
        self.buckets = TokenBuckets(per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on, or answers 429 with Retry-After."""
        if scope["type"] == "http" and scope["path"] not in UNLIMITED_PATHS:
            wait = self.buckets.take(scope.get("hemostat.owner") or (scope.get("client") or ("local",))[0])
            if wait:
                error = HemostatError(
                    ErrorCode.RATE_LIMITED,
                    f"More than {self.per_minute} requests a minute came from this client.",
                    retry_after_s=wait,
                )
                await problems.response(scope, error)(scope, receive, send)
                return
        await self.app(scope, receive, send)


class BodyLimit:
    """Refuses a body beyond the limit: by its Content-Length before it is read, else while it comes in."""

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Counts what is received."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        error = HemostatError(ErrorCode.BODY_TOO_LARGE, f"The body is larger than {self.limit} bytes.")
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > self.limit:
            # The rest of the body is not read, so the connection cannot be used again.
            await problems.response(scope, error, headers={"connection": "close"})(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self.limit:
                    raise error
            return message

        await self.app(scope, counted, send)
