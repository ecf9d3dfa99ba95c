"""The queue: a pydocket docket whose only task takes a job's id. What docket does not document is used here alone.

docket pickles arguments and keeps only execution state; the job itself is JSON in `app.jobs.store`. The task key is the
job id, so submitting twice is submitting once.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast

from docket import Docket
from docket.dependencies import AdmissionBlocked, current_execution
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


async def known(docket: Docket, job_ids: Sequence[str]) -> dict[str, bool]:
    """Whether docket still has each job: scheduled, queued or running. Raises `RedisError`."""
    async with docket.redis() as redis:
        pipeline = cast(Pipeline, redis.pipeline(transaction=False))  # docket's own type of it knows fewer commands
        for job_id in job_ids:
            pipeline.hget(docket.runs_key(job_id), "state")
        states = await pipeline.execute()
    return {job_id: (state or b"").decode() in KNOWN_STATES for job_id, state in zip(job_ids, states, strict=True)}


def message_id() -> Any:
    """The message whose delivery this task is."""
    return current_execution.get().message_id


def left_open() -> AdmissionBlocked:
    """To raise in a task whose job another worker runs: docket neither acknowledges the message nor gives it away."""
    return AdmissionBlocked(current_execution.get(), "its worker", handled=True)


async def renew(docket: Docket, worker: str, message: Any) -> None:
    """Claims a message again for the worker that has it, so that docket gives it to no other. Raises `RedisError`."""
    async with docket.redis() as redis:
        await redis.xclaim(
            name=docket.stream_key,
            groupname=docket.worker_group_name,
            consumername=worker,
            min_idle_time=0,
            message_ids=[message],
            idle=0,
            justid=True,
        )


async def give_back(docket: Docket, job_id: str) -> None:
    """Delivers a running job again at once, to whichever worker is free. Raises `RedisError`.

    A newer generation of the same key: the delivery that still runs is thereby superseded.
    """
    await docket.replace(TASK_NAME, datetime.now(UTC), job_id)(job_id)
