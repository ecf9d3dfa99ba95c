"""The guards before the routes, each a pure ASGI middleware that answers with a problem document."""

import asyncio
import base64
import binascii
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import problems
from app.contracts.errors import ErrorCode, HemostatError
from app.gateway import errors as openai_errors
from app.security.keys import LEAST_CHARACTERS, KeyFile, is_loopback
from app.security.limits import TokenBuckets
from app.security.scopes import KEY, LOCAL_USER, OPEN_PATHS, Key, client_of

# A limit must not blind anyone who watches the service.
UNLIMITED_PATHS: Final = OPEN_PATHS | {"/metrics", "/metrics/targets"}
REVOKED_AFTER_S: Final = 1.0  # an open stream notices so late that its key was revoked
_PORTS: Final = {"http": 80, "https": 443}


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
            host, origin = f"http://{headers.get('host', '')}", headers.get("origin")
            # A page of another port is another program's, though it is on this machine.
            if not self._ours(host) or (
                origin is not None and not (self._ours(origin) and _port(origin) == _port(host))
            ):
                error = HemostatError(ErrorCode.HOST_NOT_ALLOWED, "The Host or Origin header names another service.")
                await problems.response(scope, error)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _ours(self, url: str) -> bool:
        try:
            name = urlsplit(url).hostname or ""
        except ValueError:
            return False
        return name == self.host or is_loopback(name)


def _port(url: str) -> int | None:
    try:
        parts = urlsplit(url)
        return parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return None


class Authentication:
    """Lets through only requests with a key in force; everything is denied by default. Without a key file the user of
    this machine is let in as administrator."""

    def __init__(self, app: ASGIApp, *, keys: KeyFile | None) -> None:
        self.app = app
        self.keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Puts the key into the scope, or answers 401."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if self.keys is None:
            scope[KEY] = LOCAL_USER
            await self.app(scope, receive, send)
            return
        sent = _sent(scope)
        key = _found(self.keys, sent)
        if key is not None:
            scope[KEY] = key
            await self.app(scope, _while_valid(receive, self.keys, key), send)
        elif scope.get("path") in OPEN_PATHS:
            await self.app(scope, receive, send)
        else:
            await problems.response(scope, _unauthorized(sent))(scope, receive, send)


def _sent(scope: Scope) -> str:
    """The key of a bearer token, or of the password that a person gave the browser.

    A browser sends the password with a form of a foreign page, too: it opens what changes nothing.
    """
    scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
    # Bytes, as they were sent: the digest is that of the key's UTF-8, and U+00A0 at its end is no space.
    sent = given.encode("latin-1").strip(b" \t")
    if scheme.casefold() == "basic" and scope.get("method") in problems.SAFE_METHODS:
        try:
            sent = base64.b64decode(sent, validate=True).partition(b":")[2]
        except binascii.Error:
            sent = b""
    elif scheme.casefold() != "bearer":
        sent = b""
    return sent.decode("utf-8", "surrogateescape")


def _found(keys: KeyFile, sent: str) -> Key | None:
    return keys.find(sent) if len(sent) >= LEAST_CHARACTERS else None


def _unauthorized(sent: str) -> HemostatError:
    if not sent:
        return HemostatError(ErrorCode.UNAUTHORIZED, "The request has no API key as a bearer token.")
    if len(sent) < LEAST_CHARACTERS:
        detail = f"The API key has fewer than {LEAST_CHARACTERS} characters: it can be guessed, and is not accepted."
        return HemostatError(ErrorCode.UNAUTHORIZED, detail)
    return HemostatError(ErrorCode.UNAUTHORIZED, "The API key is unknown, expired or revoked.")


def _while_valid(receive: Receive, keys: KeyFile, key: Key) -> Receive:
    """As if the client had left once its key is revoked or has expired: that ends open streams."""

    async def received() -> Message:
        message = asyncio.ensure_future(receive())
        try:
            while not (await asyncio.wait({message}, timeout=REVOKED_AFTER_S))[0]:
                if not keys.holds(key):
                    return {"type": "http.disconnect"}
            return message.result()
        finally:
            message.cancel()

    return received


class RateLimit:
    """At most so many requests per minute of one owner of keys, or without keys from one address; on OpenAI's routes
    also so many tokens. Every answer shows the limits and what is left of them."""

    def __init__(self, app: ASGIApp, *, requests: TokenBuckets, tokens: TokenBuckets | None) -> None:
        self.app = app
        self.requests = requests
        self.tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes on, or answers 429 with Retry-After."""
        if scope["type"] != "http" or scope["path"] in UNLIMITED_PATHS:
            await self.app(scope, receive, send)
            return
        client = client_of(scope)
        limits = {"requests": self.requests}
        if self.tokens is not None and scope["method"] == "POST" and openai_errors.is_ours(scope["path"]):
            limits["tokens"] = self.tokens

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, buckets in limits.items():
                    headers[f"x-ratelimit-limit-{name}"] = str(buckets.per_minute)
                    headers[f"x-ratelimit-remaining-{name}"] = str(buckets.left(client))
            await send(message)

        for name, buckets in limits.items():
            wait = buckets.wait(client)
            if wait:
                detail = f"This client has used its {buckets.per_minute} {name} per minute."
                error = HemostatError(ErrorCode.RATE_LIMITED, detail, retry_after_s=wait)
                await problems.response(scope, error)(scope, receive, told)
                return
        self.requests.charge(client, 1)
        await self.app(scope, receive, told)


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
