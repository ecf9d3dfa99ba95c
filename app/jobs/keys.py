"""Names of the keys that the job record uses.

docket names its own keys `hemostat:…`, and a task's data `hemostat:TASK_KEY`; ours begin otherwise, so that they can
never meet. `lua/prelude.lua` builds the same names.
"""

import hashlib
from typing import Final

from app.contracts.job import JobStatus

PREFIX: Final = "hemostat-jobs:"

INDEX: Final = PREFIX + "index"
WORKERS: Final = PREFIX + "workers"
CLOCK: Final = PREFIX + "clock"  # hash: how long the service has served, and when that was last counted
ENDED: Final = PREFIX + "ended"  # sorted set: ids of ended jobs by how long the service had served then
UNTIDY: Final = PREFIX + "untidy"  # set: ids of ended jobs whose files and events are still to be tidied
FINISHED: Final = PREFIX + "finished"
LINED_UP: Final = PREFIX + "lined-up"  # number: how often a job was put into a line
WAITING_OWNERS: Final = PREFIX + "waiting-owners"  # set: owners of queued jobs
UNSETTLED: Final = PREFIX + "unsettled"  # set: ids of jobs made for a deployment that has not been told their end


def job(job_id: str) -> str:
    """Hash: the record."""
    return f"{PREFIX}job:{job_id}"


def events(job_id: str) -> str:
    """Stream: the events; entry ids are 1-0, 2-0, …"""
    return f"{PREFIX}events:{job_id}"


def tail(job_id: str) -> str:
    """String: the newest events of a job that has ended, one a line, once its stream is gone."""
    return f"{PREFIX}tail:{job_id}"


def status(status: JobStatus) -> str:
    """Sorted set, all scores 0: ids of the jobs of one status. Ids sort by age."""
    return f"{PREFIX}status:{status.value}"


def queued(owner: str) -> str:
    """Sorted set: ids of the queued jobs of one owner, by their numbers in the order in which all were queued."""
    return f"{PREFIX}queued:{owner}"


def owner(owner: str) -> str:
    """Sorted set, all scores 0: ids of the jobs of one owner."""
    return f"{PREFIX}owner:{owner}"


def worker(worker_id: str) -> str:
    """String with expiry: what a live worker says of itself."""
    return f"{PREFIX}worker:{worker_id}"


def idempotency(owner: str, key: str) -> str:
    """Hash: what an Idempotency-Key of one API key means. Never holds the key itself."""
    digest = hashlib.sha256(f"{owner}\0{key}".encode()).hexdigest()
    return f"{PREFIX}idempotency:{digest}"
