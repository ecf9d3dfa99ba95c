"""Puts right what a crash left between the record, docket and the disk, and forgets what is too old.

The record says what is to be done; docket only delivers. A process may die, or Redis go away, between the two writes.
So a sweep compares them, at start and every few seconds. Any number of processes may sweep at once, since submitting
twice is submitting once.
"""

import asyncio
import logging
import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from docket import Docket

from app.contracts.job import TERMINAL, JobStatus
from app.jobs import files, queue
from app.jobs.filters import Filters
from app.jobs.record import JobRecord
from app.jobs.states import drop_states, users
from app.jobs.store import JobStore
from app.jobs.turns import turns
from app.jobs.workers import living
from app.memory import LOW_WATER
from app.settings import Settings

logger = logging.getLogger(__name__)

PERIOD_S: Final = 5.0
PAGE: Final = 100
FORGET: Final = 500  # jobs in one sweep at most
MEASURE_S: Final = 60.0  # between two looks at the size of the folder of jobs
ENDED: Final = (None, *TERMINAL)  # status of a job that no worker will have; None: it is deleted
ORPHAN_S: Final = 30.0  # longer than a submission takes from its file to its record


@dataclass
class Swept:
    """What a sweep did; `kept` are the jobs whose files could not be removed, each with the reason."""

    resubmitted: int = 0
    cancelled: int = 0
    forgotten: int = 0
    kept: dict[str, str] = field(default_factory=dict)


async def sweep(
    store: JobStore,
    docket: Docket,
    settings: Settings,
    remove_files: Callable[[str], None],
    orphans: dict[Path, float] | None = None,
) -> Swept:
    """One pass. `remove_files` removes what a job left on disk.

    - queued, it is its turn, and docket does not have it: submitted, in the order in which they were queued.
    - running or being cancelled, and lost: docket does not have it, no live worker names it, and it has been silent
      for as long as docket takes to redeliver. A running one is submitted again, the other is cancelled.
    - ended: its request, what its attempts left half done and most of its events go.
    - ended, and the service has served for the retention since then: removed with its files. So are jobs that ended
      without a result, half of them, the oldest of the owner with most first, while Redis has little memory left.
    - a request on disk without a job that waits for it, seen as such for a while (`orphans`, from sweep to sweep):
      removed.
    - hidden states of a deleted job: removed, unless another job uses them.
    """
    done = Swept()
    now = await store.now()
    served = await store.tick()
    done.resubmitted += await hand_over(store, docket)
    busy = {worker.job for worker in await living(store.client)}
    silent: list[str] = []
    for status in (JobStatus.RUNNING, JobStatus.CANCELLING):
        async for record in _all(store, status):
            if record.job.id in busy or abs(now - record.updated_at) < settings.redelivery_s:
                continue
            if status is JobStatus.RUNNING:
                silent.append(record.job.id)
            # Anyone who ran it is gone, and nothing is left to be stopped.
            elif await store.cancelled(record.job.id, record.job.attempt):
                done.cancelled += 1
                await _remove(remove_files, record.job.id, done)
    done.resubmitted += await _submit_unknown(store, docket, sorted(silent))
    await _tidy(store, settings, done)
    old = await store.ended(served - settings.job_retention_s, FORGET)
    if (await store.memory.usage()).ratio > LOW_WATER:
        useless = sorted([*await store.ids(JobStatus.CANCELLED), *await store.ids(JobStatus.FAILED)])
        old += await _of_the_largest(store, dict.fromkeys(useless, 1), min(FORGET, len(useless) / 2))
    await _forget(store, old, remove_files, done)
    await _drop_orphans(store, settings, {} if orphans is None else orphans)
    await _drop_states(store, settings)
    return done


async def hand_over(store: JobStore, docket: Docket) -> int:
    """Submits the jobs whose turn it is and that docket does not have: call it when a job has left the queue. How many
    were. Raises RedisError; the next sweep does what was not done."""
    return await _submit_unknown(store, docket, await turns(store))


async def _submit_unknown(store: JobStore, docket: Docket, job_ids: list[str]) -> int:
    """Submits those that docket does not have, in this order. How many were."""
    known = await queue.known(docket, job_ids)
    missing = [job_id for job_id in job_ids if not known[job_id]]
    # One that another version wrote has its turn too: its attempt fails, and its owner's next job follows.
    statuses = await store.each("status", missing)
    return sum([await queue.submit(docket, job_id) for job_id in missing if statuses[job_id] not in ENDED])


async def _tidy(store: JobStore, settings: Settings, done: Swept) -> None:
    for job_id, attempt in (await store.untidy()).items():
        if await _remove(partial(files.tidy, settings, keep=attempt), job_id, done):
            await store.compact(job_id)


async def _forget(store: JobStore, ended: list[str], remove_files: Callable[[str], None], done: Swept) -> None:
    for job_id in ended:
        # Its record is as long as its files do, so that they are tried again.
        if await _remove(remove_files, job_id, done):
            await store.delete(job_id)
            done.forgotten += 1


async def keep_budget(store: JobStore, settings: Settings, remove_files: Callable[[str], None], done: Swept) -> None:
    """Forgets jobs with their files until the folder of jobs is within its budget: the owner whose ended jobs take most
    loses the one that ended first."""
    sizes = await asyncio.to_thread(files.sizes, settings)
    excess = sum(sizes.values()) - settings.jobs_budget_bytes
    ended = {job_id: sizes[job_id] for job_id in await store.ended() if sizes.get(job_id)}
    await _forget(store, await _of_the_largest(store, ended, excess), remove_files, done)


async def _of_the_largest(store: JobStore, sizes: dict[str, int], excess: float) -> list[str]:
    """Jobs without which so much less is held: again and again the first one of the owner that holds most."""
    if excess <= 0:
        return []
    held: Counter[str | None] = Counter()
    lines: defaultdict[str | None, deque[str]] = defaultdict(deque)
    for job_id, owner in (await store.each("owner", sizes)).items():
        held[owner] += sizes[job_id]
        lines[owner].append(job_id)
    going: list[str] = []
    while excess > 0 and len(going) < len(sizes):
        [(owner, _)] = held.most_common(1)
        going.append(lines[owner].popleft())
        held[owner] -= sizes[going[-1]]
        excess -= sizes[going[-1]]
    return going


async def _drop_orphans(store: JobStore, settings: Settings, orphans: dict[Path, float]) -> None:
    """A request is written before its record: a crash between the two leaves it alone."""
    found = await asyncio.to_thread(lambda: list(files.requests(settings)))
    statuses = await store.each("status", [job_id for job_id, _ in found])
    now = time.monotonic()
    alone = {path: orphans.get(path, now) for job_id, path in found if statuses[job_id] in ENDED}
    orphans.clear()
    for path, since in alone.items():
        if now - since < ORPHAN_S:
            orphans[path] = since
        else:
            await asyncio.to_thread(path.unlink, missing_ok=True)


async def _drop_states(store: JobStore, settings: Settings) -> None:
    """States that were in use when their job was deleted."""
    root = files.states_folder(settings)
    noted = await asyncio.to_thread(users, root)
    for job_id, status in (await store.each("status", noted)).items():
        if status is None:
            await asyncio.to_thread(drop_states, root, job_id)


async def _remove(remove_files: Callable[[str], None], job_id: str, done: Swept) -> bool:
    """Whether a job's files are gone. One folder that stays is no reason to leave the others."""
    try:
        await asyncio.to_thread(remove_files, job_id)
    except OSError as error:
        done.kept[job_id] = f"{error.strerror or type(error).__name__}: {error.filename}"
        return False
    return True


async def _all(store: JobStore, status: JobStatus) -> AsyncIterator[JobRecord]:
    """Records of a status, newest first."""
    after = None
    while True:
        records, after = await store.page(after=after, limit=PAGE, filters=Filters(status=status))
        for record in records:
            yield record
        if after is None:
            return


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
    orphans: dict[Path, float] = {}
    measured_at = float("-inf")
    while True:
        try:
            swept = await sweep(store, docket, settings, remove_files, orphans)
            if time.monotonic() - measured_at >= MEASURE_S:
                await keep_budget(store, settings, remove_files, swept)
                measured_at = time.monotonic()
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
