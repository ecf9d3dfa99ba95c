"""Progress and log lines on their way to the job's record: in order, coalesced, and never in the way of the job."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Final

from redis.exceptions import RedisError

from app.contracts.job import Progress
from app.jobs.store import JobStore
from workers.process.tasks import cancel

# Log lines that wait while Redis is away; older ones are dropped.
MAX_WAITING: Final = 500
RETRY_S: Final = 0.5
FLUSH_S: Final = 2.0


class Reporter:
    """Writes for one attempt. A progress that was not written yet is replaced by the next one of the same phase.

    `stale` is called once when the record refuses a write because the attempt no longer has the job.
    """

    def __init__(self, store: JobStore, job_id: str, attempt: int, *, stale: Callable[[], None]) -> None:
        self._store = store
        self._job_id = job_id
        self._attempt = attempt
        self._stale = stale
        self._waiting: deque[Progress | str] = deque()
        self._more = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task = asyncio.create_task(self._write(), name="reporter")

    def progress(self, progress: Progress) -> None:
        """Takes a progress report."""
        last = self._waiting[-1] if self._waiting else None
        if isinstance(last, Progress) and last.phase == progress.phase:
            self._waiting.pop()
        self._put(progress)

    def log(self, message: str) -> None:
        """Takes a line."""
        self._put(message)

    async def close(self) -> None:
        """Writes what waits, if that is quickly done, and ends."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), FLUSH_S)
        await cancel(self._task)

    def _put(self, item: Progress | str) -> None:
        self._waiting.append(item)
        while len(self._waiting) > MAX_WAITING:
            self._waiting.popleft()
        self._idle.clear()
        self._more.set()

    async def _write(self) -> None:
        while True:
            await self._more.wait()
            while self._waiting:
                item = self._waiting.popleft()
                try:
                    accepted = await self._send(item)
                except (RedisError, OSError):
                    if not (isinstance(item, Progress) and self._waiting):
                        self._waiting.appendleft(item)
                    await asyncio.sleep(RETRY_S)
                    continue
                if not accepted:
                    self._waiting.clear()
                    self._stale()
            self._more.clear()
            self._idle.set()

    async def _send(self, item: Progress | str) -> bool:
        if isinstance(item, Progress):
            return await self._store.progress(self._job_id, self._attempt, item)
        return await self._store.log(self._job_id, self._attempt, item)
