"""HTTP to the replicas: one connection pool, every time-out set, nothing of the client's headers passed on.

Each replica gets the internal secret that it registered with, and no other one's. The own transport of httpx reads HTTP
in Python, which is the largest cost of an event of a stream. The one of aiohttp, under the same client, reads it in C.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from app.contracts.deployment import NOT_FINITE, Replica
from app.deployments.secret import headers_for
from app.gateway import errors
from app.settings import Settings

logger = logging.getLogger(__name__)

POOL_TIMEOUT_S: Final = 5.0
WRITE_TIMEOUT_S: Final = 30.0
SMALL_TIMEOUT_S: Final = 5.0
DOOR_TIMEOUT_S: Final = 5.0
HEALTH_TIMEOUT_S: Final = 2.0
MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024
# A larger body is given to aiohttp in parts: it would hold up the loop for one that is whole, and warns of it.
PART_BYTES: Final = 1024 * 1024
# Shorter than uvicorn's keep-alive of 5 s, so that a connection is not used just when the replica closes it.
KEEP_ALIVE_S: Final = 4.0
# The transport gives httpx's errors for most of aiohttp's; an answer that is no HTTP, and some others, it passes on.
FAILED: Final = (httpx.HTTPError, aiohttp.ClientError)


class ReplicaLostError(Exception):
    """The replica could not be reached, fell silent, or broke off in the middle."""


class ReplicaSilentError(ReplicaLostError):
    """It took the request and did not answer in time. It lives, most likely, and another would take as long."""


class DoorSilentError(Exception):
    """The engine's own port cannot be asked, so no one knows whether the engine ended a request."""


class Upstream:
    """The pool. Connections are kept; cancelling a request closes its connection, and so ends the
    replica's work."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every request otherwise
        transport = AiohttpTransport(client=_session)  # which is made in the loop, at the first request
        self._client = httpx.AsyncClient(transport=transport, trust_env=False, follow_redirects=False)
        self._client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # it would keep a replica's
        self._served: dict[tuple[str, str], str] = {}

    async def close(self) -> None:
        """Closes every connection."""
        await self._client.aclose()

    def _timeout(self, read_s: float) -> httpx.Timeout:
        connect = self._settings.gateway_connect_timeout_s
        return httpx.Timeout(connect=connect, read=read_s, write=None, pool=POOL_TIMEOUT_S)

    @asynccontextmanager
    async def post(self, replica: Replica, path: str, body: bytes, *, stream: bool) -> AsyncIterator[httpx.Response]:
        """The answer's head; its body is for the caller to read. Raises ReplicaLostError, also while it is read,
        ReplicaSilentError where that takes too long."""
        url = f"{base(replica)}{path}"
        read_s = self._settings.gateway_read_timeout_s if stream else self._settings.gateway_answer_timeout_s
        sized = {"content-type": "application/json", "content-length": str(len(body)), "accept-encoding": "identity"}
        request = self._client.build_request(
            "POST",
            url,
            content=body if len(body) <= PART_BYTES else _parts(body),
            headers=sized | headers_for(replica.secret),
            timeout=self._timeout(read_s),
        )
        try:
            try:
                async with asyncio.timeout(WRITE_TIMEOUT_S + read_s):  # aiohttp waits for ever where no one reads
                    answer = await self._client.send(request, stream=True)
            except TimeoutError as error:
                raise ReplicaSilentError("it does not read the request") from error
            try:
                if answer.status_code == 401:  # another process has its port by now, and says so within a second
                    raise ReplicaLostError("it takes another secret")
                yield answer
            finally:
                await answer.aclose()
        except httpx.ReadTimeout as error:
            raise ReplicaSilentError(_named(error)) from error
        except (*FAILED, httpx.StreamError) as error:
            raise ReplicaLostError(_named(error)) from error

    async def served_name(self, replica: Replica) -> str:
        """The name that the replica's server knows its model by; asked once. Raises ReplicaLostError."""
        key = (replica.id, replica.url)
        name = self._served.get(key)
        if name is None:
            try:
                answer = await self._client.get(
                    f"{base(replica)}/v1/models",
                    headers=headers_for(replica.secret),
                    timeout=self._timeout(SMALL_TIMEOUT_S),
                )
                name = str(answer.raise_for_status().json()["data"][0]["id"])
            except (*FAILED, ValueError, LookupError, TypeError) as error:
                raise ReplicaLostError(_named(error)) from error
            if len(self._served) > 1024:
                self._served.clear()
            self._served[key] = name
        return name

    async def why_ended(self, replica: Replica, request_id: str) -> str:
        """Why the engine ended this request, "" where it did not, or where the replica has no door to ask at. Raises
        DoorSilentError where it has one that does not tell."""
        if not replica.engine_url:
            return ""
        url = f"{replica.engine_url.rstrip('/')}/nonfinite/{request_id}"
        try:
            async with asyncio.timeout(DOOR_TIMEOUT_S):
                answer = await self._client.get(
                    url, headers=headers_for(replica.secret), timeout=self._timeout(DOOR_TIMEOUT_S)
                )
                told = answer.raise_for_status().json()
                return str(told.get("reason") or NOT_FINITE) if told["nonfinite"] else ""
        except (*FAILED, ValueError, LookupError, TypeError, AttributeError, TimeoutError) as error:
            logger.warning("replica %s: its engine's door does not answer: %s", replica.id, _named(error))
            raise DoorSilentError from error

    async def check_alive(self, replica: Replica) -> None:
        """Raises ReplicaLostError if its server reports a dead engine, or does not answer. The server of vLLM goes on
        for a while after its engine died: each request gets an error that looks like its own."""
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                answer = await self._client.get(f"{base(replica)}/health", timeout=self._timeout(HEALTH_TIMEOUT_S))
        except (*FAILED, TimeoutError) as error:
            raise ReplicaLostError(f"its health cannot be asked: {_named(error)}") from error
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            raise ReplicaLostError("its engine is dead")

    async def call(self, replica: Replica, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
        """A small question and its whole answer. Raises ReplicaLostError."""
        async with self.post(replica, path, json.dumps(body).encode(), stream=False) as answer:
            return answer.status_code, await read(answer)


def _named(error: BaseException) -> str:
    """What went wrong, for the log: the transport calls every lost connection a time-out, aiohttp names it."""
    return type(error.__cause__ or error).__name__


def _session() -> aiohttp.ClientSession:
    """aiohttp's side: as many connections as there are requests, and no cookies."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


async def _parts(body: bytes) -> AsyncIterator[bytes]:
    for begin in range(0, len(body), PART_BYTES):
        yield body[begin : begin + PART_BYTES]


def base(replica: Replica) -> str:
    """Its address without the last slash."""
    return replica.url.rstrip("/")


async def read(answer: httpx.Response) -> bytes:
    """The whole body. Raises ApiError (400) for one that is beyond all measure: another replica's would be, too."""
    parts: list[bytes] = []
    size = 0
    async for chunk in answer.aiter_raw():
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            raise errors.too_large(f"it has more than {MAX_ANSWER_BYTES >> 20} MiB")
        parts.append(chunk)
    return b"".join(parts)
