"""What happens when a job is submitted, cancelled or deleted: everything is checked before anything is written."""

import asyncio
import contextlib
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from docket import Docket
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.contracts.base import Contract
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.job import Estimate, Job, JobStatus
from app.contracts.request import JobRequest, Submission
from app.jobs import files, queue, reconcile
from app.jobs.ids import is_job_id, new_job_id
from app.jobs.record import JobRecord, read_record, request_fields
from app.jobs.store import Idempotency, JobStore, Outcome
from app.jobs.workers import living
from app.models import looking
from app.models.pace import Pace, measured
from app.problems import FieldError, RequestError
from app.settings import Settings

logger = logging.getLogger(__name__)

MAX_SHOWN: Final = 64
ID_CHARACTERS: Final = 26
KEY_PARAMETER: Final = "Idempotency-Key"
MAX_KEY_LENGTH: Final = 255


@dataclass(frozen=True)
class Submitted:
    """A job, and whether an earlier request with the same Idempotency-Key had made it."""

    job: Job
    replayed: bool


def job_not_found(job_id: str) -> HemostatError:
    """404; what could not be an id is quoted, shortened, and told what an id looks like."""
    if is_job_id(job_id):
        return HemostatError(ErrorCode.JOB_NOT_FOUND, f"There is no job {job_id}.")
    shown = ascii(job_id) if len(job_id) <= MAX_SHOWN else f"{job_id[:MAX_SHOWN]!a}…"
    return HemostatError(
        ErrorCode.JOB_NOT_FOUND,
        f"There is no job {shown}: that is not a job's id.",
        hint=f"An id is diag_ and {ID_CHARACTERS} digits and capital letters; `hemostat jobs list` shows them.",
    )


async def find(store: JobStore, job_id: str, owner: str | None) -> JobRecord:
    """The record of an owner's job (None: of anybody's), or 404; 409 (JOB_UNREADABLE) for one that another version
    wrote."""
    record = await store.get(job_id, owner) if is_job_id(job_id) else None
    if record is None:
        raise job_not_found(job_id)
    return record


@contextlib.asynccontextmanager
async def told_of_deleted(store: JobStore, jobs: Sequence[str]) -> AsyncIterator[None]:
    """Raises JOB_NOT_FOUND instead of ARTIFACT_NOT_FOUND for a job that was deleted while its files were read."""
    try:
        yield
    except HemostatError as error:
        if error.code is ErrorCode.ARTIFACT_NOT_FOUND:
            for job in jobs:
                await find(store, job, None)
        raise


def hold_of(owner: str, key: str | None, request: Contract) -> Idempotency | None:
    """The hold that a request asks for by its Idempotency-Key."""
    if key is None:
        return None
    if not (0 < len(key) <= MAX_KEY_LENGTH and key.isascii() and key.isprintable()):
        raise RequestError(
            [
                FieldError(
                    ErrorCode.INVALID_REQUEST,
                    f"The Idempotency-Key is not 1 to {MAX_KEY_LENGTH} printable ASCII characters.",
                    "Use a UUID.",
                    parameter=KEY_PARAMETER,
                )
            ]
        )
    canonical = json.dumps(request.model_dump(mode="json", exclude={"dry_run"}), sort_keys=True)
    return Idempotency(owner, key, hashlib.sha256(canonical.encode()).hexdigest())


async def dry_run(client: Redis, request: Submission, settings: Settings, owner: str) -> Estimate:
    """Checks as a submission does, and estimates instead of running, by how fast the living workers were."""
    here: Pace | None = None
    with contextlib.suppress(RedisError, OSError):  # nothing is queued, so that Redis may be away
        here = measured((worker.scoring_rate, worker.card) for worker in await living(client))
    return await looking.estimate(request, settings, owner, here)


async def submit(
    store: JobStore,
    docket: Docket,
    request: Submission,
    settings: Settings,
    hold: Idempotency | None,
    owner: str,
) -> Submitted:
    """Makes the job, or finds the one that the same Idempotency-Key of its owner made before.

    The record is what counts: once it is written the job is accepted. Should docket not learn of it now (Redis or this
    process gone between the two), `reconcile` shows it later.
    """
    earlier = await store.standing(hold) if hold is not None else None
    if earlier is not None:
        return await _earlier(store, earlier)
    await looking.check(request, settings, owner)
    job_id = new_job_id()
    outcome = await store.create(job_id, request, hold, owner=owner)
    if outcome.kind != "created":
        return await _earlier(store, outcome)
    if outcome.its_turn:
        await queue.submit(docket, job_id)
    return Submitted(_queued(job_id, request, outcome.created_at), replayed=False)


async def _earlier(store: JobStore, outcome: Outcome) -> Submitted:
    if outcome.kind == "replayed":
        return Submitted((await find(store, outcome.job_id, None)).job, replayed=True)
    raise refusal(store, outcome)


def refusal(store: JobStore, outcome: Outcome) -> HemostatError:
    """Why nothing was made: another body had the key, or the queue is full."""
    if outcome.kind == "conflict":
        return RequestError(
            [
                FieldError(
                    ErrorCode.IDEMPOTENCY_CONFLICT,
                    "This Idempotency-Key was used with another body.",
                    parameter=KEY_PARAMETER,
                )
            ]
        )
    if outcome.kind == "owner_full":
        return HemostatError(
            ErrorCode.QUEUE_FULL,
            f"{store.settings.owner_max_queued_jobs} jobs of this key's owner wait: the limit is reached.",
            retry_after_s=files.QUEUE_FULL_RETRY_S,
        )
    return HemostatError(
        ErrorCode.QUEUE_FULL,
        f"The queue is full: {store.settings.max_queued_jobs} jobs.",
        retry_after_s=files.QUEUE_FULL_RETRY_S,
    )


def _queued(job_id: str, request: JobRequest, created_at: float) -> Job:
    """The job as it was just written. Not read back: a failing read must not make an accepted job look refused."""
    at = dict.fromkeys(("created_at", "queued_at", "updated_at"), str(created_at))
    counts = dict.fromkeys(("attempt", "tries", "events"), "0")
    return read_record(request_fields(request) | at | counts | {"id": job_id, "status": JobStatus.QUEUED}).job


async def cancel(store: JobStore, docket: Docket, job_id: str, owner: str | None) -> tuple[Job, bool]:
    """A queued job is cancelled; a running one is asked to stop; one that has ended stays as it is.

    What an earlier attempt left of a job that was given back goes with it: no worker will see this job again. Returns
    the job, and whether that changed it.
    """
    before = await store.status(job_id, owner) if is_job_id(job_id) else None
    status = await store.cancel(job_id) if before is not None else None
    if status is None:
        raise job_not_found(job_id)
    if status is JobStatus.CANCELLED:
        await queue.withdraw(docket, job_id)
        with contextlib.suppress(RedisError, OSError):  # else the next sweep does it
            await reconcile.hand_over(store, docket)
        try:
            await asyncio.to_thread(files.remove, store.settings, job_id)
        except OSError as error:
            logger.warning("%s is cancelled, its files are still there: %s", job_id, error.strerror)
    return (await find(store, job_id, owner)).job, before in {JobStatus.QUEUED, JobStatus.RUNNING}


async def delete(store: JobStore, settings: Settings, job_id: str, owner: str | None) -> None:
    """Removes a job that has ended: first its files, then its record, so that a failure leaves something to repeat."""
    try:
        record = await find(store, job_id, owner)
    except HemostatError as error:
        if error.code is not ErrorCode.JOB_UNREADABLE:
            raise
        await _delete_unreadable(store, settings, job_id)
        return
    if not record.ended:
        raise HemostatError(ErrorCode.JOB_ACTIVE, f"The job is {record.job.status.value}.")
    await asyncio.to_thread(files.remove, settings, job_id)
    await store.delete(job_id)


async def _delete_unreadable(store: JobStore, settings: Settings, job_id: str) -> None:
    """The store alone can tell whether such a job has ended."""
    if await store.delete(job_id) == "active":
        raise HemostatError(ErrorCode.JOB_ACTIVE, "The job has not ended.")
    await asyncio.to_thread(files.remove, settings, job_id)
