"""In which order jobs have their turn.

docket delivers first come, first served. When a worker takes a job, docket gets the first waiting job of each owner
that has fewest running (`turns`), and all that have no owner. So owners have their turns in a circle, and an
owner whose jobs run for long does not get one worker after the other while others wait. The fits that the service
starts for deployments are the jobs of one owner.

A job that was given back (its worker was asked to go, or a deployment's fit made way) comes again behind those that
docket has, and so does one that a sweep submits again. What workers hold comes before all of them; a lost worker's job
is among that, since it is delivered before any other.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Final

from docket import Docket

from app.contracts.errors import HemostatError
from app.contracts.job import JobStatus
from app.contracts.queue import Queue
from app.jobs import keys
from app.jobs.queue import deliveries
from app.jobs.record import JobRecord
from app.jobs.store import JobStore

SHOWN: Final = 2

# The lower comes first. Between the two are (1, …) the messages of docket, by their numbers, and (2, …) what docket
# gets later: by the jobs that its owner has running then, and by its number in the order of all.
Place = tuple[int, int, int]
HELD: Final[Place] = (0, 0, 0)
UNKNOWN: Final[Place] = (3, 0, 0)


async def turns(store: JobStore) -> list[str]:
    """Ids of the queued jobs that docket is to have, in the order in which they were queued: the first one of each
    owner that has fewest running, and all that have no owner."""
    lines, running = await store.lines(), await _running(store)
    fewest = min((running[owner] for owner in lines if owner), default=0)
    chosen = dict(lines.get("", {}))
    for owner, line in lines.items():
        if owner and running[owner] == fewest:
            chosen |= dict(itertools.islice(line.items(), 1))
    return sorted(chosen, key=lambda job_id: chosen[job_id])


async def _running(store: JobStore) -> Counter[str]:
    """How many jobs of each owner workers have."""
    ids = [job_id for status in (JobStatus.RUNNING, JobStatus.CANCELLING) for job_id in await store.ids(status)]
    return Counter(owner or "" for owner in (await store.each("owner", ids)).values())


async def waits_for(store: JobStore, docket: Docket, record: JobRecord, owner: str | None) -> Queue:
    """What is before a job in the queue; jobs of other owners are counted and not shown (`owner` None: all are shown).

    Raises `RedisError` if Redis cannot be reached.
    """
    ids = await before(store, docket, record.job.id) if record.job.status is JobStatus.QUEUED else []
    first = []
    for job_id in ids:
        try:
            found = await store.get(job_id, owner)
        except HemostatError:  # another version wrote it: it is counted, and not shown
            continue
        if found is not None:
            first.append(found.job)
        if len(first) == SHOWN:
            break
    return Queue(status=record.job.status, before=len(ids), first=tuple(first))


async def before(store: JobStore, docket: Docket, job_id: str) -> list[str]:
    """Ids of the jobs whose turn comes before that of a queued one, in that order; none where a worker has it just
    now."""
    pipeline = store.client.pipeline(transaction=False)
    for status in (JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.CANCELLING):
        pipeline.zrange(keys.status(status), 0, -1)
    queued, *begun = await pipeline.execute()
    held = {one for ids in begun for one in ids}
    found = await places(docket, [job_id, *held.union(queued) - {job_id}])
    running = await _running(store)
    for owner, line in (await store.lines()).items():
        for rounds, (one, number) in enumerate(line.items(), running[owner]):
            if found.get(one) == UNKNOWN:
                found[one] = (2, rounds, int(number))

    def turn(one: str) -> tuple[Place, str]:
        # docket may have forgotten a task whose job a worker still holds.
        return (HELD if one in held and found[one] == UNKNOWN else found[one]), one

    mine = turn(job_id)
    return [] if mine[0] == HELD else sorted((one for one in found if turn(one) < mine), key=turn)


async def places(docket: Docket, job_ids: Sequence[str]) -> dict[str, Place]:
    """Where docket has each job: `HELD` by a worker, in its queue, or `UNKNOWN` to it."""
    return {job_id: _place(*delivery) for job_id, delivery in (await deliveries(docket, job_ids)).items()}


def _place(state: str, message: str) -> Place:
    if state == "running":
        return HELD
    if state != "queued" or not message:
        return UNKNOWN
    milliseconds, _, number = message.partition("-")
    return (1, int(milliseconds), int(number))
