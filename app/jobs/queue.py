"""The queue: a pydocket docket whose only task takes a job's id.

docket pickles arguments and keeps only execution state; the job itself is JSON in `app.jobs.store`. The task key is the
job id, so submitting twice is submitting once.
"""

import asyncio
from datetime import timedelta
from typing import Final, cast

from docket import Docket
from redis.asyncio.client import Pipeline
from redis.exceptions import RedisError

from app.jobs.connection import redis_url
from app.settings import Settings

DOCKET_NAME: Final = "hemostat"
TASK_NAME: Final = "run_job"

# States of docket in which it will still deliver, or has delivered, the task.
KNOWN_STATES: Final = frozenset({"scheduled", "queued", "running"})


def make_docket(settings: Settings) -> Docket:
    """The docket, not yet entered. Both sides make it by this function, so that they agree."""
    return Docket(
        name=DOCKET_NAME,
        url=redis_url(settings),
        heartbeat_interval=timedelta(seconds=2),
        missed_heartbeats=5,
        # docket's own record of a finished task: nothing reads it, and a key is used again when a job is put back.
        execution_ttl=timedelta(minutes=1),
    )


async def run_job(job_id: str) -> None:
    """The task's twin on the submitting side: name and signature are what counts. The worker registers the real one."""
    raise RuntimeError(f"{job_id} was delivered to a process that only submits")


async def submit(docket: Docket, job_id: str, *, timeout_s: float = 5.0) -> bool:
    """Hands the job to docket; a no-op where docket already knows it.

    False when Redis did not answer in time. The job is not lost: its record says queued, and `reconcile` submits it.
    """
    task = docket.tasks.get(TASK_NAME, run_job)  # a worker submits too, and its task is the real one
    try:
        await asyncio.wait_for(docket.add(task, key=job_id)(job_id), timeout_s)
    except (RedisError, OSError, TimeoutError):
        return False
    return True


async def withdraw(docket: Docket, job_id: str, *, timeout_s: float = 5.0) -> bool:
    """Takes a job that has not begun out of the queue. False when Redis did not answer: its claim will be refused."""
    try:
        await asyncio.wait_for(docket.cancel(job_id), timeout_s)
    except (RedisError, OSError, TimeoutError):
        return False
    return True


async def known(docket: Docket, job_ids: list[str]) -> dict[str, bool]:
    """Whether docket still has each job: scheduled, queued or running."""
    async with docket.redis() as redis:
        pipeline = cast(Pipeline, redis.pipeline(transaction=False))  # docket's own type of it knows fewer commands
        for job_id in job_ids:
            pipeline.hget(docket.runs_key(job_id), "state")
        states = await pipeline.execute()
    return {
        job_id: (state.decode() if isinstance(state, bytes) else state) in KNOWN_STATES
        for job_id, state in zip(job_ids, states, strict=True)
    }
