"""In which order jobs have their turn.

docket delivers first come, first served. It has one waiting job of each owner of keys, and all that have no owner
(`JobStore.turns`). When a worker takes a job, docket gets the next one of its owner. So owners have their turns in a
circle.

A job that was given back (its worker was told to go, or a deployment's fit made way) comes again behind those that
docket has, and so does one that a sweep submits anew. What workers hold comes before all of them; a lost worker's job
is among that, since it is delivered before any other.
"""

from collections.abc import Sequence
from typing import Final

from docket import Docket

from app.contracts.errors import HemostatError
from app.contracts.job import JobStatus
from app.contracts.queue import Queue
from app.jobs import keys
from app.jobs.record import JobRecord
from app.jobs.store import JobStore

SHOWN: Final = 2

# The lower comes first. Between the two are the messages of docket, by their numbers; the second part counts the rounds
# that a job waits until docket gets it.
Place = tuple[int, int, int, int]
HELD: Final[Place] = (0, 0, 0, 0)
UNKNOWN: Final[Place] = (2, 0, 0, 0)


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
    found = await places(store, docket, [job_id, *held.union(queued) - {job_id}])
    for line in (await store.lines()).values():
        _line_up(found, [one for one in line if one in found])

    def turn(one: str) -> tuple[Place, str]:
        # docket may have forgotten a task whose job a worker still holds.
        return (HELD if one in held and found[one] == UNKNOWN else found[one]), one

    mine = turn(job_id)
    return [] if mine[0] == HELD else sorted((one for one in found if turn(one) < mine), key=turn)


async def places(store: JobStore, docket: Docket, job_ids: Sequence[str]) -> dict[str, Place]:
    """Where docket has each job: `HELD` by a worker, in its queue, or `UNKNOWN` to it."""
    pipeline = store.client.pipeline(transaction=False)
    for job_id in job_ids:
        pipeline.hmget(docket.runs_key(job_id), ["state", "stream_id"])
    rows = await pipeline.execute()
    return {job_id: _place(state, message or "") for job_id, (state, message) in zip(job_ids, rows, strict=True)}


def _place(state: str | None, message: str) -> Place:
    if state == "running":
        return HELD
    if state != "queued" or not message:
        return UNKNOWN
    milliseconds, _, number = message.partition("-")
    return (1, 0, int(milliseconds), int(number))


def _line_up(found: dict[str, Place], line: Sequence[str]) -> None:
    """Gives places to the jobs of one owner that docket does not have yet: behind the owner's first, round by round."""
    first = min((found[job_id] for job_id in line), default=UNKNOWN)
    later = [job_id for job_id in line if found[job_id] == UNKNOWN]
    for rounds, job_id in enumerate(later, 1):
        found[job_id] = (max(first[0], 1), rounds, *first[2:])
