"""The job record and its events, in Redis.

A hash a job, a stream of its events, and sorted sets that index the ids; the request is a file (`app.jobs.files`).
Every transition is one Lua script, so it happens whole or not at all. Every script may run twice with the same effect:
the client sends a command again if its reply was lost. Writes of a worker carry the attempt number that its claim
returned: once another worker has the job, they are refused. docket itself does not fence deliveries.

Only commands of Redis 6.2. Nothing here needs FastAPI: the workers use it too.
"""

import asyncio
import contextlib
import json
import logging
import re
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from typing import Any, Final, Literal, cast

from pydantic import ValidationError
from redis.asyncio import Redis

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.job import TERMINAL, JobError, JobStatus, Progress, job_error
from app.contracts.request import JobRequest
from app.jobs import files, keys
from app.jobs.event_log import EventLog
from app.jobs.filters import Filters
from app.jobs.record import Claim, JobRecord, read_record, request_fields, shortened
from app.kinds.registry import requests
from app.memory import RedisMemory
from app.settings import Settings

logger = logging.getLogger(__name__)

MAX_LOG_CHARACTERS: Final = 2000
MAX_ENDED_EVENTS: Final = 50  # of a job that has ended, as many of them as fit
MAX_ENDED_BYTES: Final = 6500  # of its fields and events; what Redis takes for it in all stays below 8 kB
MAX_DETAIL_BYTES: Final = 600
MAX_HINT_BYTES: Final = 300
MAX_STEP_S: Final = 60  # between two ticks
ARTIFACT_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
REPORT_PATH: Final = re.compile(r"attempt-[0-9]+/[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
MAX_TOLD: Final = 1000  # unreadable records that are logged
SCAN: Final = 256  # records read at once when a page is filtered
MOST_SCANNED: Final = 4096  # ids looked at for one page


class Orders(StrEnum):
    """What the record shows the worker that runs an attempt."""

    GO_ON = "go_on"
    CANCEL = "cancel"
    STOP = "stop"  # another attempt has the job, or it has ended: nothing that this attempt writes will be accepted


@dataclass(frozen=True)
class Idempotency:
    """A client's key, of which API key (`owner`), and the fingerprint of the body that came with it."""

    owner: str
    key: str
    fingerprint: str

    @property
    def name(self) -> str:
        """Its Redis key."""
        return keys.idempotency(self.owner, self.key)


@dataclass(frozen=True)
class Outcome:
    """What became of a creation, or what a key means.

    `job_id` where there is a job; `created_at` (Unix seconds) where this call made it, and `its_turn` if docket is to
    have it now (`app.jobs.turns`).
    """

    kind: Literal["created", "replayed", "conflict", "queue_full", "owner_full"]
    job_id: str = ""
    created_at: float = 0.0
    its_turn: bool = False


@dataclass(frozen=True)
class Statistics:
    """The queue at one moment.

    `oldest_queued_s` is 0 if nothing waits; `finished` counts the jobs that ever ended, by kind and status.
    """

    by_status: dict[JobStatus, int]
    oldest_queued_s: float
    finished: dict[tuple[str, JobStatus], int]


class JobStore(EventLog):
    """Job records over one Redis client (made by `app.jobs.connection.connect`: it must decode responses).

    Raises `redis.exceptions.RedisError` (or OSError) where Redis cannot be reached; nothing is half-written then.
    """

    def __init__(self, client: "Redis", settings: Settings) -> None:
        super().__init__(client)
        self.settings = settings
        self.memory = RedisMemory(client)
        self._told: set[str] = set()  # ids of unreadable records that were logged
        folder = resources.files("app.jobs") / "lua"
        prelude = (folder / "prelude.lua").read_text(encoding="utf-8")
        self._scripts = {
            name: client.register_script(prelude + (folder / f"{name}.lua").read_text(encoding="utf-8"))
            for name in ("create", "claim", "append", "end", "release", "cancel", "delete", "tick", "compact")
        }

    async def _run(self, script: str, names: list[str], *arguments: str | int) -> Any:
        return await self._scripts[script](keys=names, args=arguments)

    # --- the owner's side

    async def standing(self, hold: Idempotency) -> Outcome | None:
        """What the key means (replayed or conflict); None: nothing yet."""
        found = await self.client.hmget(hold.name, ["fingerprint", "job"])
        fingerprint, job_id = cast("list[str | None]", found)
        if fingerprint is None or job_id is None:
            return None
        return Outcome("replayed" if fingerprint == hold.fingerprint else "conflict", job_id)

    async def create(
        self, job_id: str, request: JobRequest, hold: Idempotency | None = None, *, owner: str = ""
    ) -> Outcome:
        """Writes the request to disk, then the record of a queued job. It is for the caller to hand it to docket if it
        is its turn, and for `reconcile` otherwise.

        `owner`: whose key asked for it; "" for a service without keys.
        Outcomes: created, queue_full, owner_full, and with an idempotency key replayed, conflict. Raises QUEUE_FULL and
        DISK_FULL if the request finds no room, UNAVAILABLE where Redis has none.
        """
        await self.memory.require_room()
        text = request.model_dump_json(exclude={"dry_run"}).encode()
        line = await self.client.zrange(keys.queued(owner), 0, -1) if owner else []
        own = cast("list[str]", line)
        digest = await asyncio.to_thread(files.keep_request, self.settings, job_id, text, own)
        pairs = request_fields(request) | {"request": digest}
        kind, made, before = await self._run(
            "create",
            [keys.job(job_id), hold.name if hold else ""],
            job_id,
            self.settings.max_queued_jobs,
            hold.fingerprint if hold else "",
            owner,
            self.settings.owner_max_queued_jobs if owner else self.settings.max_queued_jobs,
            *(part for pair in pairs.items() for part in pair),
        )
        if kind == "created":
            # Another process's sweep removes a request that has no record for a while: this one may have been frozen.
            if not await asyncio.to_thread(files.request_file(self.settings, job_id).exists):
                await asyncio.to_thread(files.keep_request, self.settings, job_id, text)
            return Outcome(kind, job_id, float(made), its_turn=not owner or not before)
        await self._drop_request(job_id)
        return Outcome(kind, made)

    async def _drop_request(self, job_id: str) -> None:
        """The text of a request is not kept longer than it is needed. What cannot be removed now, `reconcile` does."""
        with contextlib.suppress(OSError):
            await asyncio.to_thread(files.drop_request, self.settings, job_id)

    async def get(self, job_id: str, owner: str | None = None) -> JobRecord | None:
        """The record, or None; None also for a job of another owner, if `owner` is given.

        Raises HemostatError (JOB_UNREADABLE) for one that another version wrote.
        """
        fields = cast("dict[str, str]", await self.client.hgetall(keys.job(job_id)))
        if not fields.get("id") or owner not in (None, fields.get("owner")):
            return None
        return read_record(fields)

    async def status(self, job_id: str, owner: str | None) -> JobStatus | None:
        """None: there is no job of this id and owner (`owner` None: of any owner)."""
        fields = await self.client.hmget(keys.job(job_id), ["owner", "status"])
        found, status = cast("list[str | None]", fields)
        return JobStatus(status) if status is not None and owner in (None, found) else None

    async def cancel(self, job_id: str) -> JobStatus | None:
        """A queued job is cancelled at once, a running one told to stop, an ended one stays as it is. None: no job."""
        answer = await self._run("cancel", [keys.job(job_id)], job_id)
        if answer in TERMINAL:
            await self._drop_request(job_id)
        return None if answer == "missing" else JobStatus(answer)

    async def delete(self, job_id: str) -> Literal["deleted", "active", "missing"]:
        """Removes the record and events of a job that has ended. Its files are the caller's."""
        return cast(Literal["deleted", "active", "missing"], await self._run("delete", [keys.job(job_id)], job_id))

    async def page(
        self, *, after: str | None = None, before: str | None = None, limit: int = 20, filters: Filters | None = None
    ) -> tuple[list[JobRecord], str | None]:
        """At most `limit` records, newest first, and the cursor with which to go on that way; None: there are no more.

        `after` a job's id come older ones; `before` it the nearest newer ones. The cursor's job may be gone. Records
        that another version wrote are left out, and their ids logged once. A page may hold fewer than `limit` although
        there are more: at most `MOST_SCANNED` jobs are looked at for one.
        """
        filters = filters or Filters()
        forwards = before is not None
        cursor = before if forwards else after
        records: list[JobRecord] = []
        batch = SCAN if filters.needs_records() else limit + 1
        for _ in range(0, MOST_SCANNED, batch):
            if forwards:
                ids = await self.client.zrangebylex(filters.index, f"({cursor}", "+", start=0, num=batch)
            else:
                top = f"({cursor}" if cursor else "+"
                ids = await self.client.zrevrangebylex(filters.index, top, "-", start=0, num=batch)
            page = cast("list[str]", ids)
            fitting = await self._fitting(page, filters) if filters.needs_records() else page
            while fitting and len(records) <= limit:
                records += await self._records(fitting[: limit + 1])
                fitting = fitting[limit + 1 :]
            if len(records) > limit:
                cursor = records[limit - 1].job.id
                break
            if len(page) < batch:
                cursor = None
                break
            cursor = page[-1]
        shown = records[:limit]
        return (shown[::-1] if forwards else shown), cursor

    async def ids(self, status: JobStatus, *, limit: int = 0) -> list[str]:
        """Ids of all jobs of a status, oldest first; with a `limit` so many of them."""
        return cast("list[str]", await self.client.zrange(keys.status(status), 0, limit - 1))

    async def lines(self) -> dict[str, dict[str, float]]:
        """Ids of the queued jobs of each owner, in the order in which they were queued, each with its number in the
        order of all."""
        owners = sorted(cast("set[str]", await self.client.smembers(keys.WAITING_OWNERS)))
        pipeline = self.client.pipeline(transaction=False)
        for owner in owners:
            pipeline.zrange(keys.queued(owner), 0, -1, withscores=True)
        return dict(zip(owners, map(dict, await pipeline.execute()), strict=True))

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

    # --- what has ended

    async def tick(self) -> float:
        """How long the service has served, in seconds; call it every few seconds, from any number of processes.

        What has ended is kept by this clock: one that jumps makes nothing older.
        """
        return float(await self._run("tick", [keys.CLOCK], MAX_STEP_S))

    async def ended(self, served_s: float = float("inf"), limit: int = -1) -> list[str]:
        """Ids of jobs that ended when the service had served so long, or less, the earliest first."""
        found = await self.client.zrangebyscore(keys.ENDED, "-inf", served_s, start=0, num=limit)
        return cast("list[str]", found)

    async def untidy(self) -> dict[str, str | None]:
        """Jobs that have ended and whose files are to be looked after: id, and the attempt that is kept."""
        ids = sorted(cast("set[str]", await self.client.smembers(keys.UNTIDY)))
        pipeline = self.client.pipeline(transaction=False)
        for job_id in ids:
            pipeline.hget(keys.job(job_id), "report")
        reports = await pipeline.execute()
        return {job_id: report and report.partition("/")[0] for job_id, report in zip(ids, reports, strict=True)}

    async def compact(self, job_id: str) -> None:
        """The files of a job that has ended are tidy: what is kept of its events is made small."""
        await self._run("compact", [keys.job(job_id)], job_id, MAX_ENDED_EVENTS, MAX_ENDED_BYTES)

    async def each(self, field: Literal["status", "owner"], job_ids: Collection[str]) -> dict[str, str | None]:
        """This field of each job; None: there is no record."""
        pipeline = self.client.pipeline(transaction=False)
        for job_id in job_ids:
            pipeline.hget(keys.job(job_id), field)
        return dict(zip(job_ids, await pipeline.execute(), strict=True))

    # --- the worker's side

    async def claim(self, job_id: str, worker: str, *, token: str | None = None) -> Claim | None:
        """Takes the job for `worker`, from its holder. None: it has ended, was cancelled, or is not there.

        The fence rises with each claim. A job that was claimed `max_attempts` times without being released or ended has
        lost as many workers: it fails with WORKER_LOST instead of being run again.

        A claim that is repeated with the same `token` is the same claim. Give one if a claim that raised is tried
        again; else the lost reply counts as a lost worker.
        """
        kind, attempt, digest = await self._run(
            "claim", [keys.job(job_id)], job_id, worker, token or uuid.uuid4().hex, self.settings.max_attempts
        )
        attempt = int(attempt)
        if kind == "exhausted":
            await self._give_up(job_id, attempt)
            return None
        if kind == "terminal":
            await self._drop_request(job_id)
        if kind != "claimed":
            return None
        try:
            return Claim(job_id, attempt, await self._request(job_id, digest))
        except files.RequestLostError as lost:
            hint = "API and workers must share HEMOSTAT_HOME. Submit the job again."
            await self.fail(job_id, attempt, job_error(ErrorCode.REQUEST_LOST, str(lost), hint))
            return None

    async def _request(self, job_id: str, digest: str | None) -> JobRequest:
        """The stored request. Raises RequestLostError, also if it does not fit the schema of this version."""
        text = await asyncio.to_thread(files.read_request, self.settings, job_id, digest or "")
        try:
            return await asyncio.to_thread(requests().validate_json, text)
        except ValidationError:
            raise files.RequestLostError("The stored request does not fit the schema of this version.") from None

    async def claim_of(self, record: JobRecord) -> Claim | None:
        """The running attempt as its worker has it, for one that helps; nothing is taken. None: the job has ended, or
        its request cannot be read here."""
        job = record.job
        digest = cast("str | None", await self.client.hget(keys.job(job.id), "request"))
        try:
            return Claim(job.id, job.attempt, await self._request(job.id, digest))
        except files.RequestLostError:
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
            "Most often the worker was killed for memory: see the log of the worker and of the machine. "
            "Then submit the job again with a smaller window or model.",
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
        short = {"detail": shortened(error.detail, MAX_DETAIL_BYTES), "hint": shortened(error.hint, MAX_HINT_BYTES)}
        return await self._end(job_id, attempt, JobStatus.FAILED, error.model_copy(update=short).model_dump_json())

    async def cancelled(self, job_id: str, attempt: int) -> bool:
        """The attempt stopped because its owner wished so. False: refused."""
        return await self._end(job_id, attempt, JobStatus.CANCELLED, "")

    async def _end(self, job_id: str, attempt: int, status: JobStatus, error: str, *fields: str) -> bool:
        answer = await self._run("end", [keys.job(job_id)], job_id, attempt, status.value, error, *fields)
        if answer in TERMINAL:
            await self._drop_request(job_id)
        return cast(str, answer) == status.value

    async def release(self, job_id: str, attempt: int) -> bool:
        """Gives the job back to the queue, as a worker does that is asked to go; it does not count as a try.

        False: refused. True: the job waits again (or is cancelled, where its owner had asked for that).
        """
        answer = await self._run("release", [keys.job(job_id)], job_id, attempt)
        if answer == JobStatus.CANCELLED:
            await self._drop_request(job_id)
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
