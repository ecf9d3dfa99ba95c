"""In which order jobs have their turn.

docket delivers first come, first served. When a worker takes a job, docket gets the first waiting job of each owner
that has fewest running (`turns`), and all that have no owner. So owners have their turns in a circle, and an
owner whose jobs run for long does not get one worker after the other while others wait. The fits that the service
starts for deployments are the jobs of one owner.

A job that was given back (its worker was asked to go, or a deployment's fit made way) comes again behind those that
wait. A lost worker's job is delivered before any other.
"""

import contextlib
import itertools
from collections import Counter

from app.contracts.errors import HemostatError
from app.contracts.job import JobStatus, Queue, Turn
from app.jobs.record import JobRecord
from app.jobs.store import JobStore


async def turns(store: JobStore) -> list[str]:
    """Ids of the queued jobs that docket is to have, in the order in which they were queued. These are the first one
    of each owner that has fewest running, and all that have no owner."""
    lines, running = await store.lines(), await _running(store)
    fewest = min((running[owner] for owner in lines if owner), default=0)
    chosen = dict(lines.get("", {}))
    for owner, line in lines.items():
        if owner and running[owner] == fewest:
            chosen |= dict(itertools.islice(line.items(), 1))
    return sorted(chosen, key=lambda job_id: chosen[job_id])


async def _running(store: JobStore) -> Counter[str]:
    """How many jobs of each owner workers have."""
    return Counter(owner or "" for owner in (await store.each("owner", await _held(store))).values())


async def _held(store: JobStore) -> list[str]:
    """Ids of the jobs that workers have."""
    return [job_id for status in (JobStatus.RUNNING, JobStatus.CANCELLING) for job_id in await store.ids(status)]


async def ahead(store: JobStore, job_id: str) -> list[str]:
    """Ids of the jobs that have their turn before a queued one: those that workers hold, then those that they get
    first."""
    running = await _running(store)
    places = {
        one: (running[owner] + rounds if owner else 0, number)
        for owner, line in (await store.lines()).items()
        for rounds, (one, number) in enumerate(line.items())
    }
    if job_id not in places:
        return []
    earlier = sorted((one for one in places if places[one] < places[job_id]), key=lambda one: places[one])
    return [*await _held(store), *earlier]


async def queue_of(store: JobStore, record: JobRecord, reader: str | None) -> Queue:
    """What a job waits for. The first job is named if `reader` may read it: its owner, or None."""
    status = record.job.status
    waits = await ahead(store, record.job.id) if status is JobStatus.QUEUED else []
    first = None
    with contextlib.suppress(HemostatError):  # another version wrote it
        if waits and (found := await store.get(waits[0], reader)):
            first = Turn(id=found.job.id, kind=found.job.kind)
    return Queue(status=status, before=len(waits), first=first)
