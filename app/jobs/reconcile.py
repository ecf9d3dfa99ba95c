"""Puts right what a crash left between the record and docket, and forgets what is too old.

The record says what is to be done; docket only delivers. A process may die, or Redis go away, after the one was written
and before the other heard of it, so a sweep compares them: at start and every few seconds. Any number of processes may
sweep at once, since submitting twice is submitting once.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from docket import Docket

from app.contracts.job import TERMINAL, JobStatus
from app.jobs import queue
from app.jobs.ids import id_at
from app.jobs.record import JobRecord
from app.jobs.store import Filters, JobStore
from app.jobs.workers import living
from app.settings import Settings

logger = logging.getLogger(__name__)

PERIOD_S: Final = 5.0
PAGE: Final = 100


@dataclass
class Swept:
    """What a sweep did."""

    resubmitted: int = 0
    cancelled: int = 0
    forgotten: int = 0


async def sweep(store: JobStore, docket: Docket, settings: Settings, remove_files: Callable[[str], None]) -> Swept:
    """One pass. `remove_files` removes what a job left on disk.

    - queued, and docket does not have it: submitted again, in the order in which they were queued.
    - running or being cancelled, docket does not have it, no live worker names it, and nothing was heard of it for as
      long as docket takes to redeliver: a running one is submitted again, the other is cancelled. (A task that ended
      without ending its job: the worker lost Redis at that moment.)
    - ended longer ago than the retention: removed with its files.
    """
    done = Swept()
    for record in sorted([one async for one in _all(store, JobStatus.QUEUED)], key=lambda one: one.queued_at):
        done.resubmitted += await _submit_unknown(docket, record)
    busy = {worker.job for worker in await living(store.client)}
    for status in (JobStatus.RUNNING, JobStatus.CANCELLING):
        async for record in _all(store, status):
            if record.job.id in busy or time.time() - record.updated_at < settings.redelivery_s:
                continue
            if status is JobStatus.CANCELLING:
                # Whoever ran it is gone, and nothing is left to be stopped.
                done.cancelled += await store.cancelled(record.job.id, record.job.attempt)
            else:
                done.resubmitted += await _submit_unknown(docket, record)
    for status in sorted(TERMINAL):
        done.forgotten += await _forget(store, status, settings, remove_files)
    return done


async def _submit_unknown(docket: Docket, record: JobRecord) -> bool:
    job_id = record.job.id
    if (await queue.known(docket, [job_id]))[job_id]:
        return False
    logger.warning("job %s was not queued: it is now", job_id)
    return await queue.submit(docket, job_id)


async def _forget(store: JobStore, status: JobStatus, settings: Settings, remove_files: Callable[[str], None]) -> int:
    count = 0
    limit = time.time() - settings.job_retention_s
    # A job ends after it was made: only those that are old enough by their id are read.
    async for record in _all(store, status, before=id_at(limit)):
        if record.job.finished_at is not None and record.job.finished_at < limit:
            await asyncio.to_thread(remove_files, record.job.id)
            await store.delete(record.job.id)
            count += 1
    return count


async def _all(store: JobStore, status: JobStatus, *, before: str | None = None) -> AsyncIterator[JobRecord]:
    """Records of a status, newest first; with `before` those whose id is smaller."""
    after = before
    more = True
    while more:
        records, more = await store.page(after=after, limit=PAGE, filters=Filters(status=status))
        for record in records:
            yield record
        if records:
            after = records[-1].job.id


async def run(
    store: JobStore,
    docket: Docket,
    settings: Settings,
    remove_files: Callable[[str], None],
    wait: Callable[[float], Awaitable[bool]],
) -> None:
    """Sweeps until `wait(seconds)` answers True. Whatever a sweep meets (Redis away, a
    folder that cannot be removed), the next one is made."""
    told: type[Exception] | None = None
    while True:
        try:
            await sweep(store, docket, settings, remove_files)
            told = None
        except Exception as error:
            if type(error) is not told:
                logger.warning("sweep: %s; trying again", type(error).__name__)
            told = type(error)
        if await wait(PERIOD_S):
            return
