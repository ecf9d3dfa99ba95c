"""Whether the worker that has a delivered job lives after all.

docket delivers a job again when its lease was not renewed for long enough. A worker that is gone does not renew it.
Neither does one to which Redis did not answer for so long: a Redis that comes back finds both leases run out. What
distinguishes them is the next heartbeat. Beats from before say nothing, and no clock is compared with another.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from pydantic import ValidationError

from app.jobs import keys
from app.jobs.store import JobStore
from app.jobs.workers import HEARTBEAT_S, WorkerInfo

# A living worker beats within it: two connections that time out may lie before.
WATCHED_S: Final = HEARTBEAT_S + 2.0
LOOK_S: Final = 0.2


async def living_holder(store: JobStore, job_id: str, worker: str, *, watched_s: float = WATCHED_S) -> str | None:
    """Id of another worker than `worker` that runs the job at this moment. None: no one has it, or its holder
    did not say so for `watched_s`. Raises `RedisError`."""
    holder = await store.holder(job_id)
    if holder is None or holder == worker:
        return None
    before = await store.client.get(keys.worker(holder))
    deadline = time.monotonic() + watched_s
    while time.monotonic() < deadline:
        await asyncio.sleep(LOOK_S)
        beat = await store.client.get(keys.worker(holder))
        if await store.holder(job_id) != holder:
            return None
        if beat is not None and beat != before and _names(beat, job_id):
            return holder
    return None


def _names(beat: bytes | str, job_id: str) -> bool:
    try:
        return WorkerInfo.model_validate_json(beat).job == job_id
    except ValidationError:
        return False
