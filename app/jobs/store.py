"""The job record and its events, in Redis.

A hash a job, a stream of its events, and sorted sets that index the ids. Every transition is one Lua script, so it
happens whole or not at all; every script may be run twice with the same effect, because the client sends a command
again when its reply was lost. Writes of a worker carry the attempt number that its claim returned: a delivery that was
given to another worker meanwhile is refused, however late it wakes up (docket itself does not fence deliveries).

Only commands of Redis 6.2. Nothing here needs FastAPI: the workers use it too.
"""

import json
import logging
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files
from typing import Any, Final, Literal, cast

from pydantic import ValidationError
from redis.asyncio import Redis

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.job import JobError, JobStatus, Progress, job_error
from app.contracts.requests import REQUEST
from app.contracts.requests.base import JobRequest
from app.jobs import keys
from app.jobs.record import Claim, JobRecord, read_record, request_fields
from app.settings import Settings

logger = logging.getLogger(__name__)

MAX_REQUEST_BYTES: Final = 1024**3  # of all jobs that have not ended, together
RESERVATION_MS: Final = 30_000
IDEMPOTENCY_TTL_S: Final = 24 * 3600
MAX_LOG_CHARACTERS: Final = 2000
ARTIFACT_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
REPORT_PATH: Final = re.compile(r"attempt-[0-9]+/[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
MAX_TOLD: Final = 1000  # unreadable records that are logged
SCAN: Final = 256  # records read at once when a page is filtered
MESSAGE_PAGE: Final = 50  # events read at once in search of a line for people
MESSAGE_PAGES: Final = 10  # a line that lies further back than these says nothing about what the job does now


class Orders(StrEnum):
    """What the record tells the worker that runs an attempt."""

    GO_ON = "go_on"
    CANCEL = "cancel"
    STOP = "stop"  # another attempt has the job, or it has ended: nothing that this attempt writes will be accepted


@dataclass(frozen=True)
class Idempotency:
    """A client's key, of which API key (`owner`), and the fingerprint of the body that came with it."""

    owner: str
    key: str
    fingerprint: str
    token: str

    @classmethod
    def of(cls, owner: str, key: str, fingerprint: str) -> "Idempotency":
        """One request's hold on a key."""
        return cls(owner, key, fingerprint, uuid.uuid4().hex)

    @property
    def name(self) -> str:
        """Its Redis key."""
        return keys.idempotency(self.owner, self.key)


@dataclass(frozen=True)
class Outcome:
    """What became of a reservation or a creation.

    `job_id` where there is a job; `created_at` (Unix seconds) where this call made it.
    """

    kind: Literal["reserved", "created", "replayed", "conflict", "in_progress", "queue_full", "owner_full"]
    job_id: str = ""
    created_at: float = 0.0


@dataclass(frozen=True)
class Filters:
    """Which jobs a page shows; None and {} are all of them."""

    status: JobStatus | None = None
    kind: str | None = None
    candidate: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    owner: str | None = None

    @property
    def index(self) -> str:
        """The set of ids to look through: of the owner, else of the status, else of all jobs."""
        if self.owner is not None:
            return keys.owner(self.owner)
        return keys.INDEX if self.status is None else keys.status(self.status)

    def needs_records(self) -> bool:
        """Whether the index alone does not show it."""
        by_owner = self.owner is not None and self.status is not None
        return by_owner or self.kind is not None or self.candidate is not None or bool(self.metadata)

    def fits(self, kind: str | None, candidate: str | None, metadata: str | None, status: str | None) -> bool:
        """Whether a record with these fields is shown."""
        if kind is None or (self.kind is not None and kind != self.kind):
            return False
        if self.status is not None and status != self.status:
            return False
        if self.candidate is not None and candidate != self.candidate:
            return False
        if not self.metadata:
            return True
        try:
            given = json.loads(metadata or "{}")
        except ValueError:
            return False
        return isinstance(given, dict) and all(given.get(name) == value for name, value in self.metadata)


@dataclass(frozen=True)
class StoredEvent:
    """An event as it is kept: its number within the job, from 1 without gaps, and its JSON (`app.contracts.event`)."""

    number: int
    data: str


@dataclass(frozen=True)
class Statistics:
    """The queue at one moment.

    `oldest_queued_s` is 0 where nothing waits; `finished` counts the jobs that ever ended, by kind and status.
    """

    by_status: dict[JobStatus, int]
    oldest_queued_s: float
    finished: dict[tuple[str, JobStatus], int]


def _number(entry_id: object) -> int:
    return int(str(entry_id).partition("-")[0])


class JobStore:
    """Job records over one Redis client (made by `app.jobs.connection.connect`: it must decode responses).

    Raises `redis.exceptions.RedisError` (or OSError) where Redis cannot be reached; nothing is half-written then.
    """

    def __init__(self, client: "Redis", settings: Settings) -> None:
        self.client = client
        self.settings = settings
        self._told: set[str] = set()  # ids of unreadable records that were logged
        folder = files("app.jobs") / "lua"
        prelude = (folder / "prelude.lua").read_text(encoding="utf-8")
        self._scripts = {
            name: client.register_script(prelude + (folder / f"{name}.lua").read_text(encoding="utf-8"))
            for name in ("reserve", "unreserve", "create", "claim", "append", "end", "release", "cancel", "delete")
        }

    async def _run(self, script: str, names: list[str], *arguments: str | int) -> Any:
        return await self._scripts[script](keys=names, args=arguments)

    # --- the owner's side

    async def reserve(self, hold: Idempotency) -> Outcome:
        """Takes an idempotency key before the work of validation; expires by itself after half a minute."""
        kind, job_id = await self._run("reserve", [hold.name], hold.fingerprint, hold.token, RESERVATION_MS)
        return Outcome(kind, job_id)

    async def unreserve(self, hold: Idempotency) -> None:
        """Gives a reservation back that came to nothing."""
        await self._run("unreserve", [hold.name], hold.token)

    async def create(
        self, job_id: str, request: JobRequest, hold: Idempotency | None = None, *, owner: str = ""
    ) -> Outcome:
        """Writes the record of a queued job. It is for the caller to hand it to docket, and for `reconcile` otherwise.

        `owner`: whose key asked for it; "" for the service itself, and for a service without keys.
        Outcomes: created, queue_full, owner_full, and with an idempotency key replayed, conflict, in_progress.
        """
        text = request.model_dump_json(exclude={"dry_run"})
        pairs = request_fields(request)
        if "deployment" in pairs:
            # Before the job: whoever settles it cannot miss it, and drops an id that never became a job.
            await self.client.sadd(keys.UNSETTLED, job_id)
        fields = [part for pair in pairs.items() for part in pair]
        kind, made = await self._run(
            "create",
            [keys.job(job_id), hold.name if hold else ""],
            job_id,
            text,
            len(text.encode()),
            self.settings.max_queued_jobs,
            MAX_REQUEST_BYTES,
            hold.fingerprint if hold else "",
            hold.token if hold else "",
            RESERVATION_MS,
            IDEMPOTENCY_TTL_S,
            owner,
            self.settings.owner_max_queued_jobs if owner else self.settings.max_queued_jobs,
            *fields,
        )
        return Outcome(kind, job_id, float(made)) if kind == "created" else Outcome(kind, made)

    async def get(self, job_id: str, owner: str | None = None) -> JobRecord | None:
        """The record, or None; None also for a job of another owner, if `owner` is given.

        Raises HemostatError (JOB_UNREADABLE) for one that another version wrote.
        """
        fields = cast("dict[str, str]", await self.client.hgetall(keys.job(job_id)))
        if not fields.get("id") or owner not in (None, fields.get("owner")):
            return None
        return read_record(fields)

    async def belongs(self, job_id: str, owner: str | None) -> bool:
        """Whether there is a job of this id and owner; None: of any owner."""
        found = await self.client.hget(keys.job(job_id), "owner")
        return found is not None and owner in (None, found)

    async def cancel(self, job_id: str) -> JobStatus | None:
        """A queued job is cancelled at once, a running one told to stop, an ended one stays as it is. None: no job."""
        answer = await self._run("cancel", [keys.job(job_id)], job_id, self.settings.job_retention_s)
        return None if answer == "missing" else JobStatus(answer)

    async def delete(self, job_id: str) -> Literal["deleted", "active", "missing"]:
        """Removes the record and events of a job that has ended. Its files are the caller's."""
        return cast(Literal["deleted", "active", "missing"], await self._run("delete", [keys.job(job_id)], job_id))

    async def page(
        self, *, after: str | None = None, before: str | None = None, limit: int = 20, filters: Filters | None = None
    ) -> tuple[list[JobRecord], bool]:
        """At most `limit` records, newest first, and whether there are more that way.

        `after` a job's id come older ones; `before` it the nearest newer ones. The cursor's job may be gone. Records
        that another version wrote are left out, and their ids logged once.
        """
        filters = filters or Filters()
        index = filters.index
        forwards = before is not None
        cursor = before if forwards else after
        records: list[JobRecord] = []
        batch = SCAN if filters.needs_records() else limit + 1
        while len(records) <= limit:
            if forwards:
                ids = await self.client.zrangebylex(index, f"({cursor}", "+", start=0, num=batch)
            else:
                ids = await self.client.zrevrangebylex(index, f"({cursor}" if cursor else "+", "-", start=0, num=batch)
            if not ids:
                break
            cursor = cast(str, ids[-1])
            page = cast("list[str]", ids)
            fitting = await self._fitting(page, filters) if filters.needs_records() else page
            while fitting and len(records) <= limit:
                records += await self._records(fitting[: limit + 1])
                fitting = fitting[limit + 1 :]
            if len(ids) < batch:
                break
        shown = records[:limit]
        return (shown[::-1] if forwards else shown), len(records) > limit

    async def ids(self, status: JobStatus) -> list[str]:
        """Ids of all jobs of a status, oldest first."""
        return cast("list[str]", await self.client.zrange(keys.status(status), 0, -1))

    async def read(self, job_ids: Sequence[str]) -> list[JobRecord]:
        """Those of the records that are there and that this version can read; the ids of others are logged once."""
        found: list[JobRecord] = []
        for start in range(0, len(job_ids), SCAN):
            found += await self._records(job_ids[start : start + SCAN])
        return found

    async def now(self) -> float:
        """Unix time in seconds by Redis's clock, which every time of a record is by."""
        seconds, micros = await self.client.time()
        return int(seconds) + int(micros) / 1e6

    async def _fitting(self, job_ids: list[str], filters: Filters) -> list[str]:
        pipeline = self.client.pipeline(transaction=False)
        for job_id in job_ids:
            pipeline.hmget(keys.job(job_id), ["kind", "candidate_model", "metadata", "status"])
        rows = await pipeline.execute()
        return [job_id for job_id, row in zip(job_ids, rows, strict=True) if filters.fits(*row)]

    async def _records(self, job_ids: Sequence[str]) -> list[JobRecord]:
        """Those of the records that are there and that this version can read."""
        pipeline = self.client.pipeline(transaction=False)
        for job_id in job_ids:
            pipeline.hgetall(keys.job(job_id))
        rows = await pipeline.execute()
        records = (self._readable(row) for row in rows if row.get("id"))
        return [record for record in records if record is not None]

    def _readable(self, fields: dict[str, str]) -> JobRecord | None:
        try:
            return read_record(fields)
        except HemostatError as error:
            if fields["id"] not in self._told and len(self._told) < MAX_TOLD:
                self._told.add(fields["id"])
                logger.warning("%s It is left out of lists and sweeps.", error.detail)
            return None

    async def events(
        self, job_id: str, after: int, *, block_s: float | None = None, count: int = 200
    ) -> list[StoredEvent]:
        """Events whose number is greater than `after`, oldest first; waits up to `block_s` where there is none yet."""
        answer: Any = await self.client.xread(
            {keys.events(job_id): f"{after}-0"},
            count=count,
            block=None if block_s is None else max(1, int(block_s * 1000)),
        )
        entries = answer[0][1] if answer else []
        return [StoredEvent(_number(entry_id), fields["data"]) for entry_id, fields in entries]

    async def latest_message(self, job_id: str) -> str | None:
        """The newest line for people among the last `MESSAGE_PAGE · MESSAGE_PAGES` events that are still kept."""
        before = "+"
        for _ in range(MESSAGE_PAGES):
            entries: Any = await self.client.xrevrange(keys.events(job_id), max=before, count=MESSAGE_PAGE)
            for _, fields in entries:
                event = json.loads(fields["data"])
                if event["type"] == "log":
                    return str(event["message"])
            if len(entries) < MESSAGE_PAGE:
                break
            before = f"({entries[-1][0]}"
        return None

    async def oldest_event(self, job_id: str) -> int | None:
        """Number of the oldest event that is still kept."""
        entries = await self.client.xrange(keys.events(job_id), count=1)
        return _number(entries[0][0]) if entries else None

    async def statistics(self) -> Statistics:
        """Jobs by status and the age of the oldest that waits."""
        pipeline = self.client.pipeline(transaction=False)
        for status in JobStatus:
            pipeline.zcard(keys.status(status))
        pipeline.zrange(keys.status(JobStatus.QUEUED), 0, -1)
        pipeline.hgetall(keys.FINISHED)
        pipeline.time()
        *counts, queued, finished, (seconds, micros) = await pipeline.execute()
        # A job that was given back is old and has just begun to wait: the age of its id says nothing.
        for job_id in queued:
            pipeline.hget(keys.job(job_id), "queued_at")
        since = [float(queued_at) for queued_at in await pipeline.execute() if queued_at is not None]
        age = max(0.0, seconds + micros / 1e6 - min(since)) if since else 0.0
        ended = {
            (kind, JobStatus(status)): int(count)
            for (kind, _, status), count in ((name.rpartition(":"), count) for name, count in finished.items())
        }
        return Statistics(dict(zip(JobStatus, counts, strict=True)), age, ended)

    # --- the worker's side

    async def claim(self, job_id: str, worker: str, *, token: str | None = None) -> Claim | None:
        """Takes the job for `worker`, from whoever had it. None: it has ended, was cancelled, or is not there.

        The fence rises with each claim. A job that was claimed `max_attempts` times without being released or ended has
        lost as many workers: it fails with WORKER_LOST instead of being run again.

        A claim that is repeated with the same `token` is the same claim: give one where a claim that raised is tried
        again, else the lost reply counts as a lost worker.
        """
        kind, attempt, text = await self._run(
            "claim",
            [keys.job(job_id)],
            job_id,
            worker,
            token or uuid.uuid4().hex,
            self.settings.max_attempts,
            self.settings.job_retention_s,
        )
        attempt = int(attempt)
        if kind == "exhausted":
            await self._give_up(job_id, attempt)
            return None
        if kind != "claimed":
            return None
        try:
            return Claim(job_id, attempt, REQUEST.validate_json(text or ""))
        except ValidationError:
            # Written by another version of the service.
            error = job_error(
                ErrorCode.INVALID_REQUEST,
                "The stored request does not fit the schema of this version.",
                "Submit the job again.",
            )
            await self.fail(job_id, attempt, error)
            return None

    async def claim_of(self, record: JobRecord) -> Claim | None:
        """The running attempt as its worker has it, for one that helps; nothing is taken. None: the job has ended, or
        this version cannot read its request."""
        text = await self.client.get(keys.request(record.job.id))
        try:
            return Claim(record.job.id, record.job.attempt, REQUEST.validate_json(text or ""))
        except ValidationError:
            return None

    async def _give_up(self, job_id: str, attempt: int) -> None:
        try:
            record = await self.get(job_id)
        except HemostatError as unreadable:
            await self.fail(job_id, attempt, job_error(unreadable.code, unreadable.detail, "Submit the job again."))
            return
        if record is None:
            return
        progress = record.job.progress
        error = job_error(
            ErrorCode.WORKER_LOST,
            f"The job was started {record.tries} times and each time its worker was lost before it could say why; "
            f"the last one in phase {progress.phase} at {progress.done} of {progress.total}.",
            "A worker that disappears was most often killed for memory: see the log of the worker and of the machine, "
            "then submit the job again with a smaller window or model.",
        )
        await self.fail(job_id, attempt, error)

    async def progress(self, job_id: str, attempt: int, progress: Progress) -> bool:
        """How far the attempt is. False: refused, the attempt no longer has the job."""
        text = progress.model_dump_json()
        return await self._append(job_id, attempt, "progress", f'"progress":{text}', text)

    async def log(self, job_id: str, attempt: int, message: str) -> bool:
        """A line for people (no document text). False: refused."""
        line = message.encode("utf-8", "replace").decode()[:MAX_LOG_CHARACTERS]
        return await self._append(job_id, attempt, "log", f'"message":{json.dumps(line)}', "")

    async def _append(self, job_id: str, attempt: int, event: str, body: str, progress: str) -> bool:
        answer = await self._run("append", [keys.job(job_id)], job_id, attempt, event, body, progress)
        return cast(str, answer) != "stale"

    async def finish(
        self,
        job_id: str,
        attempt: int,
        *,
        report: str,
        severity: str,
        classes: Sequence[str] = (),
        answer: str | None = None,
        artifacts: Sequence[str] = (),
    ) -> bool:
        """The attempt's result: `report` is "attempt-N/report.json" below the job's folder, `artifacts` lie beside it;
        `classes` are those that the interval of its verdict touches, `answer` says in a few words what was found.

        True: the job has succeeded with this result. False: refused, the attempt no longer has the job, or its owner
        had asked to cancel it (it is cancelled then).
        """
        if not REPORT_PATH.fullmatch(report):
            raise ValueError(f"not a report below the job's folder: {report!r}")
        for name in artifacts:
            if not ARTIFACT_NAME.fullmatch(name):
                raise ValueError(f"not an artifact's name: {name!r}")
        fields = {
            "report": report,
            "severity": severity,
            "classes": json.dumps(list(classes)),
            **({"answer": answer} if answer else {}),
            "artifacts": json.dumps(list(artifacts)),
        }
        pairs = (part for pair in fields.items() for part in pair)
        return await self._end(job_id, attempt, JobStatus.SUCCEEDED, "", *pairs)

    async def fail(self, job_id: str, attempt: int, error: JobError) -> bool:
        """The attempt failed for good. False: refused, or the job is cancelled instead."""
        return await self._end(job_id, attempt, JobStatus.FAILED, error.model_dump_json())

    async def cancelled(self, job_id: str, attempt: int) -> bool:
        """The attempt stopped because its owner wished so. False: refused."""
        return await self._end(job_id, attempt, JobStatus.CANCELLED, "")

    async def _end(self, job_id: str, attempt: int, status: JobStatus, error: str, *fields: str) -> bool:
        answer = await self._run(
            "end", [keys.job(job_id)], job_id, attempt, status.value, error, self.settings.job_retention_s, *fields
        )
        return cast(str, answer) == status.value

    async def release(self, job_id: str, attempt: int) -> bool:
        """Gives the job back to the queue, as a worker does that is told to go; it does not count as a try.

        False: refused. True: the job waits again (or is cancelled, where its owner had asked for that).
        """
        answer = await self._run("release", [keys.job(job_id)], job_id, attempt, self.settings.job_retention_s)
        return cast(str, answer) in {JobStatus.QUEUED, JobStatus.CANCELLED}

    async def orders(self, job_id: str, attempt: int) -> Orders:
        """What the attempt is to do: go on, stop because its owner cancelled, or stop because it lost the job."""
        status, current = await self.client.hmget(keys.job(job_id), ["status", "attempt"])
        if current != str(attempt):
            return Orders.STOP
        if status == JobStatus.CANCELLING:
            return Orders.CANCEL
        return Orders.GO_ON if status == JobStatus.RUNNING else Orders.STOP

    async def holder(self, job_id: str) -> str | None:
        """Id of the worker that claimed the job last, until it has ended or was given back."""
        fields = await self.client.hmget(keys.job(job_id), ["status", "worker"])
        status, worker = cast("list[str | None]", fields)
        return worker if status in {JobStatus.RUNNING, JobStatus.CANCELLING} else None

    async def cancel_requested(self, job_id: str) -> bool:
        """Whether the job's owner asked for it to stop."""
        status = await self.client.hget(keys.job(job_id), "status")
        return status == JobStatus.CANCELLING
