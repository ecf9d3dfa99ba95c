"""A job's events as server-sent events.

The id of an event is its number within the job, so a client that comes back with `Last-Event-ID` gets exactly what it
missed, from any API process. Where that is no longer kept, a `gap` event says so. The stream ends with `end`.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter
from redis.exceptions import RedisError

from app.contracts.errors import ErrorCode
from app.contracts.event import EndEvent, Event, GapEvent
from app.jobs.record import JobRecord
from app.jobs.store import JobStore, StoredEvent
from app.problems import FieldError, RequestError

logger = logging.getLogger(__name__)

RETRY_MS: Final = 1000
PING: Final = b": ping\n\n"
MAX_NUMBER: Final = 2**53
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
    """One event on the wire. JSON has no line breaks, so it is one `data` line."""
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {event.type}\ndata: {event.model_dump_json()}\n\n".encode()


class EventStream:
    """The events of one job after number `last`, for one client.

    It lives through a Redis that goes away (pings keep the connection open meanwhile) and stops when `stopping` is set,
    without `end`: the client comes back with Last-Event-ID.
    """

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
        self.store = store
        self.job_id = record.job.id
        # An id from the future stands for a history that was lost: begin again, behind a gap.
        self.last = last
        self.lost = last > record.events
        self.ended = record.ended
        self.stopping = stopping
        self.heartbeat_s = heartbeat_s
        self.poll_s = poll_s

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
            for number, event in self._numbered(batch):
                yield frame(event, number)
                heard = time.monotonic()
                if event.type == "end":
                    return
            if not batch and (self.ended or time.monotonic() - heard >= self.heartbeat_s):
                yield PING
                heard = time.monotonic()
                final = await self._quiet()
                if final is not None:
                    if final:
                        yield final
                    return

    def _numbered(self, batch: list[StoredEvent]) -> list[tuple[int, Event]]:
        """The batch's events, behind a gap where some before it are no longer kept."""
        out: list[tuple[int, Event]] = []
        if batch and (batch[0].number > self.last + 1 or self.lost):
            first = batch[0].number
            out.append((first - 1, GapEvent(resume_from=str(first), at=time.time())))
            self.lost = False
        out += [(stored.number, _EVENT.validate_json(stored.data)) for stored in batch]
        if batch:
            self.last = batch[-1].number
        return out

    async def _next(self) -> list[StoredEvent] | None:
        """The next events, [] where none came in time, None when the process is told to go."""
        try:
            return await self._unless_stopping(self.store.events(self.job_id, self.last, block_s=self.poll_s))
        except (RedisError, OSError) as error:
            logger.info("event stream of %s: %s; waiting", self.job_id, type(error).__name__)
            await self._unless_stopping(asyncio.sleep(self.poll_s))
            return []

    async def _quiet(self) -> bytes | None:
        """Called when nothing was heard for a while: the last frame where nothing will ever come, else None.

        Events outlive their job by the retention; one that is deleted takes them with it.
        """
        try:
            record = await self.store.get(self.job_id)
            if record is None:
                return b""
            if not record.ended or await self.store.events(self.job_id, self.last, count=1):
                return None
        except (RedisError, OSError):
            return None
        at = record.job.finished_at or record.updated_at
        return frame(EndEvent(status=record.job.status, error=record.job.error, at=at), record.events)

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
