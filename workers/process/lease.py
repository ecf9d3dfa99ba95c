"""The docket message of a running job: kept while the job runs, given back when it does not go on here.

docket renews leases itself, but not while it drains and not while it waits to reconnect; a job that runs on through
either would be delivered to a second worker. So a running job renews its own.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from docket import Docket


class Lease:
    """One delivery of a job to this worker."""

    def __init__(self, docket: Docket, worker: str, message_id: Any) -> None:
        self._docket = docket
        self._worker = worker
        self._message_id = message_id

    async def renew(self) -> None:
        """Says that the job still runs here. Raises `RedisError`."""
        async with self._docket.redis() as redis:
            await redis.xclaim(
                name=self._docket.stream_key,
                groupname=self._docket.worker_group_name,
                consumername=self._worker,
                min_idle_time=0,
                message_ids=[self._message_id],
                idle=0,
                justid=True,
            )

    async def give_back(self, job_id: str) -> None:
        """Delivers the job again at once, to whichever worker is free. Raises `RedisError`.

        A newer generation of the same key: this delivery, still running, is thereby superseded.
        """
        await self._docket.replace("run_job", datetime.now(UTC), job_id)(job_id)
