"""Numbered events as server-sent events: a job's, and a deployment's.

The id of an event is its number within its owner, so a client that comes back with `Last-Event-ID` gets exactly what it
missed, from any API process. Where that is no longer kept, a `gap` event says so. A job's stream ends with `end`, a
deployment's with `deleted`.
"""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter
from redis.exceptions import RedisError
from starlette.responses import StreamingResponse

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.event import EndEvent, Event, GapEvent
from app.jobs.record import JobRecord
from app.jobs.store import JobStore
from app.problems import FieldError, RequestError
from app.state import State

logger = logging.getLogger(__name__)

RETRY_MS: Final = 1000
PING: Final = b": ping\n\n"
MAX_NUMBER: Final = 2**53
MAX_STREAMS: Final = 500
MAX_STREAMS_RETRY_S: Final = 5
_T = TypeVar("_T")
_EVENT: Final[TypeAdapter[Event]] = TypeAdapter(Event)


def parse_last_event_id(text: str | None) -> int:
    """Number of the last event that the client has, 0 for none. Raises RequestError (INVALID_CURSOR)."""
    if not text:
        return 0
    if text.isascii() and text.isdecimal() and len(text) <= 16 and int(text) <= MAX_NUMBER:
        return int(text)
    raise RequestError(
        [
            FieldError(
                ErrorCode.INVALID_CURSOR,
                "Last-Event-ID is not the id of an event of this stream.",
                parameter="Last-Event-ID",
            )
        ]
    )


def frame(event: Event, number: int | None) -> bytes:
    """One event on the wire."""
    return written(event.type, event.model_dump_json(), number)


def written(name: str, data: str, number: int | None) -> bytes:
    """One event on the wire. JSON has no line breaks, so it is one `data` line."""
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {name}\ndata: {data}\n\n".encode()


@dataclass(frozen=True)
class Framed:
    """An event as it goes over the wire, its number, and whether nothing follows it."""

    number: int
    data: bytes
    last: bool


class NumberedStream(ABC):
    """The events after number `last`, for one client; `newest` is the number of the newest one, `name` for the log.

    It lives through a Redis that goes away (pings keep the connection open meanwhile) and stops when `stopping` is set,
    without a last event: the client comes back with Last-Event-ID.
    """

    def __init__(
        self,
        name: str,
        last: int,
        newest: int,
        *,
        stopping: asyncio.Event,
        heartbeat_s: float,
        poll_s: float,
        ended: bool = False,
    ) -> None:
        self.name = name
        # An id from the future means a history that was lost: begin again, behind a gap.
        self.last = last
        self.lost = last > newest
        self.ended = ended
        self.stopping = stopping
        self.heartbeat_s = heartbeat_s
        self.poll_s = poll_s

    @abstractmethod
    async def events(self, after: int, block_s: float) -> list[Framed]:
        """The events that follow, waited for."""

    @abstractmethod
    async def quiet(self) -> bytes | None:
        """Called when nothing was heard for a while: the last frame where nothing will ever come, else None."""

    async def frames(self) -> AsyncIterator[bytes]:
        """What goes over the wire."""
        yield f"retry: {RETRY_MS}\n\n".encode()
        heard = time.monotonic()
        if self.lost:
            self.last = 0
        while not self.stopping.is_set():
            batch = await self._next()
            if batch is None:
                return
            for framed in self._numbered(batch):
                yield framed.data
                heard = time.monotonic()
                if framed.last:
                    return
            if not batch and (self.ended or time.monotonic() - heard >= self.heartbeat_s):
                yield PING
                heard = time.monotonic()
                final = await self.quiet()
                if final is not None:
                    if final:
                        yield final
                    return

    def _numbered(self, batch: list[Framed]) -> list[Framed]:
        """The batch's events, behind a gap where some before it are no longer kept."""
        out: list[Framed] = []
        if batch and (batch[0].number > self.last + 1 or self.lost):
            first = batch[0].number
            gap = frame(GapEvent(resume_from=str(first), at=time.time()), first - 1)
            out.append(Framed(first - 1, gap, last=False))
            self.lost = False
        if batch:
            self.last = batch[-1].number
        return out + batch

    async def _next(self) -> list[Framed] | None:
        """The next events, [] where none came in time, None when the process is asked to go."""
        try:
            return await self._unless_stopping(self.events(self.last, self.poll_s))
        except (RedisError, OSError) as error:
            logger.info("event stream of %s: %s; waiting", self.name, type(error).__name__)
            await self._unless_stopping(asyncio.sleep(self.poll_s))
            return []

    async def _unless_stopping(self, work: Coroutine[Any, Any, _T]) -> _T | None:
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            return await task if task.done() else None
        finally:
            for pending in (task, stop):
                if not pending.done():
                    pending.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)


class EventStream(NumberedStream):
    """A job's events, to `end`."""

    def __init__(
        self,
        store: JobStore,
        record: JobRecord,
        last: int,
        *,
        stopping: asyncio.Event,
        heartbeat_s: float,
        poll_s: float,
    ) -> None:
        super().__init__(
            record.job.id,
            last,
            record.events,
            stopping=stopping,
            heartbeat_s=heartbeat_s,
            poll_s=poll_s,
            ended=record.ended,
        )
        self.store = store

    async def events(self, after: int, block_s: float) -> list[Framed]:
        """The job's events that follow."""
        found = []
        for stored in await self.store.events(self.name, after, block_s=block_s):
            event = _EVENT.validate_json(stored.data)
            found.append(Framed(stored.number, frame(event, stored.number), last=event.type == "end"))
        return found

    async def quiet(self) -> bytes | None:
        """Events outlive their job by the retention; one that is deleted takes them with it."""
        try:
            record = await self.store.get(self.name)
            if record is None:
                return b""
            if not record.ended or await self.store.events(self.name, self.last, count=1):
                return None
        except (RedisError, OSError):
            return None
        at = record.job.finished_at or record.updated_at
        return frame(EndEvent(status=record.job.status, error=record.job.error, at=at), record.events)


def respond(state: State, stream: NumberedStream, owner: str) -> StreamingResponse:
    """The stream as an answer, counted. Raises HemostatError (RATE_LIMITED) if too many are open already."""
    told = ""
    if state.open_streams.total() >= MAX_STREAMS:
        told = f"{MAX_STREAMS} event streams are open already."
    elif owner and state.open_streams[owner] >= state.settings.owner_max_streams:
        told = f"{state.settings.owner_max_streams} event streams of this key's owner are open already."
    if told:
        raise HemostatError(ErrorCode.RATE_LIMITED, told, retry_after_s=MAX_STREAMS_RETRY_S)
    return StreamingResponse(
        _counted(state, stream, owner),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _counted(state: State, stream: NumberedStream, owner: str) -> AsyncIterator[bytes]:
    state.open_streams[owner] += 1
    state.telemetry.streams.set(state.open_streams.total())
    try:
        async for chunk in stream.frames():
            yield chunk
    finally:
        state.open_streams[owner] -= 1
        state.telemetry.streams.set(state.open_streams.total())
