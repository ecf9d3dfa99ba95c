"""A stream to a client: begun by its first event or sign of life, kept alive, given up where no one reads it.

`write` returns when the server has taken the bytes, and waits while the client's buffer is full. So a slow client slows
the reading from its replica, and nothing piles up here.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from starlette.types import Send

from app.contracts.errors import HemostatError
from app.gateway import errors
from app.gateway.rewrite import dump
from app.gateway.sse import DONE, KEEP_ALIVE, Event

_HEADERS: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-store",
    "x-accel-buffering": "no",  # proxies pass events on one by one
}


class SlowClientError(Exception):
    """The client has not read for so long that its generation is stopped."""


class Writer:
    """One stream."""

    def __init__(self, send: Send, *, heartbeat_s: float, timeout_s: float) -> None:
        self._send = send
        self._heartbeat_s = heartbeat_s
        self._timeout_s = timeout_s
        self._headers: dict[str, str] = {}
        self._lock = asyncio.Lock()
        self._wrote_at = time.monotonic()
        self._beat: asyncio.Task[None] | None = None
        self.started = False
        self.ended = False

    @asynccontextmanager
    async def open(self, headers: dict[str, str]) -> AsyncIterator[None]:
        """Sends signs of life meanwhile. `headers` are those of the answer, as long as it has not begun."""
        self._headers = headers
        self._wrote_at = time.monotonic()
        self._beat = asyncio.create_task(self._keep_alive(), name="gateway-keep-alive")
        try:
            yield
        finally:
            await self._stop_beating()

    async def write(self, data: bytes) -> None:
        """Sends bytes of whole events. Raises SlowClientError."""
        async with self._lock:
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._begin()
                    await self._send({"type": "http.response.body", "body": data, "more_body": True})
            except TimeoutError:
                raise SlowClientError from None
            self._wrote_at = time.monotonic()

    async def event(self, data: bytes, name: bytes = b"") -> None:
        """Sends one event."""
        await self.write(Event(data, name).encode())

    async def done(self) -> None:
        """The end of a stream that went well."""
        await self._end(Event(DONE).encode())

    async def fail(self, error: HemostatError, *, typed: bool = False) -> None:
        """The end of a stream that did not. `typed`: as an `error` event of the Responses API."""
        body = errors.envelope(error)
        if typed:
            body = {"type": "error", **body, "code": error.code.value, "message": body["error"]["message"]}
        await self._end(Event(dump(body), b"error" if typed else b"").encode())

    async def _begin(self) -> None:
        if not self.started:
            self.started = True
            raw = [(name.encode(), value.encode()) for name, value in (_HEADERS | self._headers).items()]
            await self._send({"type": "http.response.start", "status": 200, "headers": raw})

    async def _end(self, data: bytes) -> None:
        if self.ended:
            return
        self.ended = True
        await self._stop_beating()
        await self.write(data)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _stop_beating(self) -> None:
        beat, self._beat = self._beat, None
        if beat is not None:
            beat.cancel()
            await asyncio.gather(beat, return_exceptions=True)

    async def _keep_alive(self) -> None:
        """Proxies and clients end connections that are silent, and a long prompt is silent for long."""
        while True:
            idle = time.monotonic() - self._wrote_at
            if idle < self._heartbeat_s:
                await asyncio.sleep(self._heartbeat_s - idle)
            elif self._lock.locked():  # an event is on its way to a client that reads slowly
                await asyncio.sleep(self._heartbeat_s)
            else:
                await self.write(KEEP_ALIVE)
