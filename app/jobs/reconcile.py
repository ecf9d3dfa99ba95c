"""Puts right what a crash left between the record and docket, and forgets what is too old.

The record says what is to be done; docket only delivers. A process may die, or Redis go away, after the one was written
and before the other heard of it, so a sweep compares them: at start and every few seconds. Any number of processes may
sweep at once, since submitting twice is submitting once.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
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
    """What a sweep did; `kept` are the jobs whose files could not be removed, each with the reason."""

    resubmitted: int = 0
    cancelled: int = 0
    forgotten: int = 0
    kept: dict[str, str] = field(default_factory=dict)


async def sweep(store: JobStore, docket: Docket, settings: Settings, remove_files: Callable[[str], None]) -> Swept:
    """One pass. `remove_files` removes what a job left on disk.

    - queued, and docket does not have it: submitted again, in the order in which they were queued.
    - running or being cancelled, docket does not have it, no live worker names it, and nothing was heard of it for as
      long as docket takes to redeliver: a running one is submitted again, the other is cancelled. (A task that ended
      without ending its job: the worker lost Redis at that moment.)
    - ended longer ago than the retention: removed with its files.
    """
    done = Swept()
    now = await store.now()
    done.resubmitted += await _submit_unknown(store, docket, await store.ids(JobStatus.QUEUED))
    busy = {worker.job for worker in await living(store.client)}
    silent: list[str] = []
    for status in (JobStatus.RUNNING, JobStatus.CANCELLING):
        async for record in _all(store, status):
            if record.job.id in busy or now - record.updated_at < settings.redelivery_s:
                continue
            if status is JobStatus.RUNNING:
                silent.append(record.job.id)
            # Whoever ran it is gone, and nothing is left to be stopped.
            elif await store.cancelled(record.job.id, record.job.attempt):
                done.cancelled += 1
                await _remove(remove_files, record.job.id, done)
    done.resubmitted += await _submit_unknown(store, docket, silent)
    for status in sorted(TERMINAL):
        await _forget(store, status, now - settings.job_retention_s, remove_files, done)
    return done


async def _submit_unknown(store: JobStore, docket: Docket, job_ids: list[str]) -> int:
    """Submits those that docket does not have, in the order in which they were queued. How many were."""
    known = await queue.known(docket, job_ids)
    records = await store.read([job_id for job_id in job_ids if not known[job_id]])
    count = 0
    for record in sorted(records, key=lambda one: one.queued_at):
        if not record.ended:
            logger.warning("job %s was not queued: it is now", record.job.id)
            count += await queue.submit(docket, record.job.id)
    return count


async def _forget(
    store: JobStore, status: JobStatus, limit: float, remove_files: Callable[[str], None], done: Swept
) -> None:
    """Forgets what ended before `limit`, a Unix time by Redis's clock, as the times of the record are."""
    # A job ends after it was made: only those that are old enough by their id are read.
    async for record in _all(store, status, before=id_at(limit)):
        old = record.job.finished_at is not None and record.job.finished_at < limit
        # Its record stands as long as its files do, so that they are tried again.
        if old and await _remove(remove_files, record.job.id, done):
            await store.delete(record.job.id)
            done.forgotten += 1


async def _remove(remove_files: Callable[[str], None], job_id: str, done: Swept) -> bool:
    """Whether a job's files are gone. One folder that stays is no reason to leave the others."""
    try:
        await asyncio.to_thread(remove_files, job_id)
    except OSError as error:
        done.kept[job_id] = f"{error.strerror or type(error).__name__}: {error.filename}"
        return False
    return True


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
    kept: dict[str, str] = {}
    while True:
        try:
            swept = await sweep(store, docket, settings, remove_files)
            told = None
            for job_id in swept.kept.keys() - kept.keys():
                logger.warning("the files of job %s cannot be removed (%s); trying again", job_id, swept.kept[job_id])
            kept = swept.kept
        except Exception as error:
            if type(error) is not told:
                logger.warning("sweep: %s; trying again", type(error).__name__)
            told = type(error)
        if await wait(PERIOD_S):
            return
