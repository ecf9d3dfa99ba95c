"""When a deployment's own fit makes way for a job that somebody asked for.

The fit is queued by the service and takes long; docket is first come, first served. So it is done in turns. If another
job has waited for a moment and the turn is over, the fit is given back to the end of the queue. It is resumed from its
files.

Nothing is thrown away. A turn is a time of work in `KEPT` phases, which leave on disk all that they did before they
were stopped. It ends in one of them and nowhere else. What comes before them in every attempt (text, surgery, loading)
is not counted. So each turn brings the fit nearer to its end, however many jobs there are. Since those beginnings cost
something, each turn is twice as long as the one before it, up to `LONGEST` times the first: 8 minutes of the default.
No other job waits longer for one fit than that, and what the attempt had to do before and around it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final, cast

from redis.exceptions import RedisError

from app.contracts.errors import HemostatError
from app.contracts.job import JobStatus
from app.deployments import keys as deployment_keys
from app.deployments.devices import own_host
from app.deployments.place_side import has_agent
from app.deployments.store import DeploymentStore
from app.jobs import keys
from app.jobs.record import Claim
from app.jobs.store import JobStore
from app.settings import Settings

WAITED_S: Final = 2.0  # so long an idle worker has had to take the other job
LONGEST: Final = 16
# Of a calibrate job (`workers.calibration.job`).
KEPT: Final = frozenset({"reference", "candidate", "fit", "choose", "test"})
_AT_ONCE: Final = 256  # records that are read together


def turn_s(first_s: float, attempt: int) -> float:
    """Seconds of the attempt's turn; attempts count from 1, and the first has `first_s`."""
    return first_s * min(2.0 ** min(attempt - 1, LONGEST), LONGEST)


class Turn:
    """How long an attempt has worked on what the next one will find done. `clock` gives seconds."""

    def __init__(self, length_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._length_s, self._clock = length_s, clock
        self._worked_s = 0.0
        self._since: float | None = None  # None: what is done now, the next attempt has to do again

    def at(self, phase: str) -> None:
        """The attempt is in this phase."""
        now = self._clock()
        if self._since is not None:
            self._worked_s += now - self._since
        self._since = now if phase in KEPT else None

    @property
    def over(self) -> bool:
        """Whether it has had its time, and loses nothing by being stopped now."""
        return self._since is not None and self._worked_s + self._clock() - self._since >= self._length_s


async def is_own_fit(store: JobStore, claim: Claim) -> bool:
    """Whether the service queued the job by itself, for a deployment, and no one asked for it. Raises `RedisError`."""
    return await _fits(store, claim.request.for_deployment, claim.job_id)


async def waiting(store: JobStore) -> str | None:
    """The oldest of all queued jobs that somebody asked for and that has waited. None: there is none, or Redis is
    away."""
    try:
        ids = cast("list[str]", await store.client.zrange(keys.status(JobStatus.QUEUED), 0, -1))
        for start in range(0, len(ids), _AT_ONCE):
            for job_id, deployment in await _long_queued(store, ids[start : start + _AT_ONCE]):
                if not await _fits(store, deployment, job_id) and await _can_be_run(store, job_id):
                    return job_id
    except (RedisError, OSError):
        return None
    return None


async def _long_queued(store: JobStore, job_ids: Sequence[str]) -> list[tuple[str, str | None]]:
    """Those that have waited, with the deployment that each is for, by the clock of Redis that stamped them."""
    pipeline = store.client.pipeline(transaction=False)
    pipeline.time()
    for job_id in job_ids:
        pipeline.hmget(keys.job(job_id), ["queued_at", "deployment"])
    (seconds, micros), *rows = await pipeline.execute()
    latest = seconds + micros / 1e6 - WAITED_S
    return [
        (job_id, deployment)
        for job_id, (queued_at, deployment) in zip(job_ids, rows, strict=True)
        if queued_at is not None and float(queued_at) <= latest
    ]


async def _can_be_run(store: JobStore, job_id: str) -> bool:
    try:
        return await store.get(job_id) is not None
    except HemostatError:  # written by another version: no one here can run it
        return False


async def _fits(store: JobStore, deployment: str | None, job_id: str) -> bool:
    if not deployment:
        return False
    known = await store.client.hget(deployment_keys.deployment(deployment), "fit_job")
    return known == f'"{job_id}"'


async def worker_share(store: JobStore, settings: Settings) -> float:
    """What a worker's engines may take of a GPU's memory: all of it, unless there is a deployment and an agent on this
    machine. Raises `RedisError`."""
    deployments = DeploymentStore(store.client, settings)
    try:
        if not await deployments.list():
            return 1.0
        hosts = await deployments.hosts()
        here = await asyncio.to_thread(own_host)
    except (HemostatError, ValueError):  # no driver that answers, or a record of another version
        return settings.share_diagnosis
    return settings.share_diagnosis if has_agent(here, hosts) else 1.0
