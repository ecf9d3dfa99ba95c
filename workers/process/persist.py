"""What is written to the record of a job, however long Redis is away."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.exceptions import RedisError

from workers.process.drain import Drain
from workers.process.lease import GIVE_UP_S, RETRY_S
from workers.telemetry import Telemetry

logger = logging.getLogger(__name__)
T = TypeVar("T")


class NotRecordedError(Exception):
    """The end of the attempt could not be written: the delivery must stay open."""


class Persist:
    """Writes to the record, and tries again for as long as Redis or the disk of requests is away."""

    def __init__(self, telemetry: Telemetry, drain: Drain) -> None:
        self._telemetry = telemetry
        self._drain = drain

    async def __call__(
        self, write: Callable[[], Awaitable[T]], *, away: Callable[[], Awaitable[None]] | None = None
    ) -> T:
        """What `write` returns. `away` is called after each try that failed. Raises NotRecordedError if the worker has
        to go before."""
        deadline: float | None = None
        told = ""
        while True:
            try:
                answer = await write()
            except (RedisError, OSError) as error:
                told = self._say(error, told)
                if self._drain.begun.is_set():
                    deadline = deadline or time.monotonic() + GIVE_UP_S
                    if time.monotonic() >= deadline:
                        raise NotRecordedError from error
                if away is not None:
                    await away()
                await asyncio.sleep(RETRY_S)
            else:
                self._telemetry.observe("worker_redis_up", 1)
                return answer

    def _say(self, error: RedisError | OSError, told: str) -> str:
        """Redis may be away, or there and refuse: a full memory, a read-only replica. A file has its own faults."""
        fault = type(error).__name__
        if isinstance(error, RedisError):
            self._telemetry.observe("worker_redis_up", 0)
            fault = f"Redis: {fault}"
        elif error.strerror:
            fault = ": ".join(str(part) for part in (error.filename, error.strerror) if part)
        if fault != told:
            logger.warning("what becomes of a job cannot be read or recorded (%s); trying again", fault)
        return fault
