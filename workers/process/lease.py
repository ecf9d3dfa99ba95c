"""The docket message of a running job: kept while the job runs, given back when it does not go on here.

docket renews leases itself, but not while it drains and not while it waits to reconnect; a job that runs on through
either would be delivered to a second worker. So a running job renews its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

from docket import Docket
from redis.exceptions import RedisError

from app.jobs import queue
from app.jobs.reconcile import hand_over
from app.jobs.store import JobStore

RETRY_S: Final = 0.5
# What a draining worker still waits for a Redis that is away; the job is delivered again in any case.
GIVE_UP_S: Final = 5.0


class Lease:
    """One delivery of a job to this worker."""

    def __init__(self, docket: Docket, worker: str, message_id: Any) -> None:
        self._docket = docket
        self._worker = worker
        self._message_id = message_id

    async def renew(self) -> None:
        """Says that the job still runs here. Raises `RedisError`."""
        await queue.renew(self._docket, self._worker, self._message_id)

    async def keep(self, every_s: float) -> None:
        """Renews it, for ever."""
        pause = every_s
        while True:
            await asyncio.sleep(pause)
            try:
                await asyncio.wait_for(self.renew(), GIVE_UP_S)
            except (RedisError, OSError):  # a time-out, too
                pause = min(every_s, RETRY_S)  # once Redis is back, before another worker finds that the lease ran out
            else:
                pause = every_s

    async def hand_over(self, store: JobStore) -> None:
        """The job has left the queue: the next one of its owner has its turn. If it fails, the API does it."""
        with contextlib.suppress(RedisError, OSError):  # a time-out, too
            await asyncio.wait_for(hand_over(store, self._docket), GIVE_UP_S)

    async def give_back(self, job_id: str) -> None:
        """Delivers the job again at once, to whichever worker is free. Raises `RedisError`."""
        await queue.give_back(self._docket, job_id)
