"""When a deployment's own fit makes way for a job that somebody asked for.

The fit is queued by the service and takes long; the queue is first come, first served. So it is done in turns: where
another job has waited for a moment and the turn is over, the fit is given back to the end of the queue, as when a
worker is told to go, and resumed from its files. Each turn is twice as long as the one before it, so that the fit comes
to its end however many jobs there are, and no piece of work is too long for a turn.
"""

from __future__ import annotations

import time
from typing import Final, cast

from redis.exceptions import RedisError

from app.contracts.errors import HemostatError
from app.contracts.job import JobStatus
from app.contracts.requests.calibrate import CalibrateRequest
from app.deployments import keys as deployment_keys
from app.jobs import keys
from app.jobs.record import Claim
from app.jobs.store import JobStore

WAITED_S: Final = 2.0  # so long an idle worker has had to take the other job
_MOST_DOUBLINGS: Final = 12
_LOOKED_AT: Final = 20  # of the jobs that wait, the oldest


def turn_s(first_s: float, attempt: int) -> float:
    """Seconds of the attempt's turn; attempts count from 1, and the first has `first_s`."""
    return first_s * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS)


async def is_own_fit(store: JobStore, claim: Claim) -> bool:
    """Whether the service queued the job by itself, for a deployment, and nobody asked for it. Raises `RedisError`."""
    request = claim.request
    return isinstance(request, CalibrateRequest) and await _fits(store, request.deployment, claim.job_id)


async def waiting(store: JobStore) -> str | None:
    """The oldest job that somebody asked for and that has waited. None: there is none, or Redis is away."""
    try:
        ids = cast("list[str]", await store.client.zrange(keys.status(JobStatus.QUEUED), 0, _LOOKED_AT - 1))
        for job_id in ids:
            if await _is_asked_for(store, job_id):
                return job_id
    except (RedisError, OSError):
        return None
    return None


async def _is_asked_for(store: JobStore, job_id: str) -> bool:
    try:
        record = await store.get(job_id)
    except HemostatError:  # written by another version: nobody here can run it
        return False
    if record is None or time.time() - record.queued_at < WAITED_S:
        return False
    return not await _fits(store, record.job.deployment, job_id)


async def _fits(store: JobStore, deployment: str | None, job_id: str) -> bool:
    if deployment is None:
        return False
    known = await store.client.hget(deployment_keys.deployment(deployment), "fit_job")
    return known == f'"{job_id}"'
