"""The runner's parts that need no child process, over a record that a test plays."""

import asyncio
from pathlib import Path
from typing import cast

import pytest
from docket import Docket
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError

from app.contracts.errors import ErrorCode
from app.contracts.job import JobError, JobStatus, job_error
from app.jobs.ids import new_job_id
from app.jobs.record import Claim, JobRecord, read_record, request_fields
from app.jobs.store import JobStore
from app.kinds.compare.request import CompareRequest
from app.settings import Settings
from tests.support.job_folders import fill_job
from workers.process import persist
from workers.process import runner as module
from workers.process.drain import Drain
from workers.process.lease import RETRY_S, Lease
from workers.process.messages import Done
from workers.process.runner import Outcome, Runner
from workers.telemetry import Telemetry

REQUEST = CompareRequest.model_validate(
    {"kind": "compare", "reference": {"model": "a"}, "candidate": {"model": "b"}, "text": {"source": "shipped"}}
)
JOB = new_job_id()


def record(status: JobStatus, attempt: int) -> JobRecord:
    fields = {"id": JOB, "status": status, "attempt": str(attempt), "tries": "1", "events": "1"}
    times = dict.fromkeys(("created_at", "updated_at", "queued_at"), "1.0")
    return read_record(fields | times | request_fields(REQUEST))


class PlayedStore:
    """What the record answers; the first reply to a claim is lost."""

    def __init__(self, found: JobRecord | None = None) -> None:
        self.found = found
        self.tokens: list[str | None] = []

    async def claim(self, _job_id: str, _worker: str, *, token: str | None = None) -> Claim | None:
        self.tokens.append(token)
        if len(self.tokens) % 2:
            raise RedisConnectionError("the reply was lost")
        return None

    async def get(self, _job_id: str) -> JobRecord | None:
        return self.found

    async def holder(self, _job_id: str) -> str | None:
        return None


class NobodyWaits:
    """A lease of a queue in which nobody waits."""

    async def hand_over(self, _store: JobStore) -> None:
        """There is no next job."""


def runner_of(store: PlayedStore, home: Path) -> Runner:
    settings = Settings(home=home)
    return Runner(settings, cast(JobStore, store), Telemetry(), worker="w", handlers="no:handlers", drain=Drain())


async def test_a_claim_whose_reply_was_lost_is_tried_again_as_the_same_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persist, "RETRY_S", 0.0)
    store = PlayedStore()
    runner = runner_of(store, tmp_path)
    lease = cast(Lease, NobodyWaits())
    await runner.run(JOB, lease)
    await runner.run(JOB, lease)
    first, again, second, _ = store.tokens
    assert first is not None
    assert first == again
    assert second != first, "another delivery is another claim"


async def test_a_redis_that_refuses_is_told_once_and_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(persist, "RETRY_S", 0.0)
    faults: list[Exception] = [OutOfMemoryError("used memory > 'maxmemory'")] * 3 + [RedisConnectionError("gone")]

    async def write() -> bool:
        if faults:
            raise faults.pop(0)
        return True

    assert await runner_of(PlayedStore(), tmp_path)._persist(write)
    told = [record.message for record in caplog.records]
    assert len(told) == 2
    assert "Redis: OutOfMemoryError" in told[0]
    assert "Redis: ConnectionError" in told[1]


async def test_a_file_that_fails_is_named_and_redis_is_not_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(persist, "RETRY_S", 0.0)
    file = tmp_path / "request"
    file.mkdir()

    async def write() -> bytes:
        try:
            return file.read_bytes()
        finally:
            if file.is_dir():
                file.rmdir()
                file.write_text("there again")

    runner = runner_of(PlayedStore(), tmp_path)
    assert await runner._persist(write) == b"there again"
    (told,) = [record.message for record in caplog.records]
    assert f"{file}: Is a directory" in told
    assert "Redis" not in told


@pytest.mark.parametrize(
    ("found", "outcome", "left"),
    [
        (record(JobStatus.SUCCEEDED, 2), Outcome.SUCCEEDED, ["attempt-2"]),
        (record(JobStatus.CANCELLED, 2), Outcome.CANCELLED, None),
        (record(JobStatus.SUCCEEDED, 10), Outcome.LOST, ["attempt-1", "attempt-10", "partial"]),
        (record(JobStatus.RUNNING, 10), Outcome.LOST, ["attempt-1", "attempt-10", "partial"]),
        (None, Outcome.LOST, ["attempt-1", "attempt-10", "partial"]),
    ],
)
async def test_an_end_that_was_refused_leaves_what_the_record_stands_by(
    tmp_path: Path, found: JobRecord | None, outcome: Outcome, left: list[str] | None
) -> None:
    runner = runner_of(PlayedStore(found), tmp_path)
    fill_job(Settings(home=tmp_path), JOB)
    claim = Claim(JOB, 2, REQUEST)
    assert await runner._ended_as(claim, Outcome.FAILED, accepted=False) is outcome
    folder = Settings(home=tmp_path).job_dir(JOB)
    assert (sorted(entry.name for entry in folder.iterdir()) if folder.exists() else None) == left


class FullStore(PlayedStore):
    """A record that cannot be written as long as `files` are there: its Valkey has no space on the same disk."""

    def __init__(self, files: list[Path]) -> None:
        super().__init__()
        self.files = files

    async def fail(self, _job_id: str, _attempt: int, _error: JobError) -> bool:
        return self._written()

    async def finish(self, _job_id: str, _attempt: int, **_result: object) -> bool:
        return self._written()

    async def cancelled(self, _job_id: str, _attempt: int) -> bool:
        return self._written()

    def _written(self) -> bool:
        if any(file.exists() for file in self.files):
            raise RedisConnectionError("it ended: no space left on device")
        return True


@pytest.mark.parametrize("code", [ErrorCode.DISK_FULL, ErrorCode.ENGINE_FAILED])
async def test_a_failed_job_frees_the_full_disk_that_keeps_its_end_from_being_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: ErrorCode
) -> None:
    monkeypatch.setattr(persist, "RETRY_S", 0.0)
    if code is not ErrorCode.DISK_FULL:  # what failed is not what filled the disk
        monkeypatch.setattr(module, "is_full", lambda _: True)
    folders = fill_job(Settings(home=tmp_path), JOB)
    runner = runner_of(FullStore(folders), tmp_path)
    failed = runner._fail(Claim(JOB, 2, REQUEST), job_error(code, "no space"))
    assert await asyncio.wait_for(failed, 10) is Outcome.FAILED
    assert not Settings(home=tmp_path).job_dir(JOB).exists()


async def test_a_finished_job_frees_the_full_disk_of_all_but_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persist, "RETRY_S", 0.0)
    monkeypatch.setattr(module, "is_full", lambda _: True)
    scratch, first, second, tenth = fill_job(Settings(home=tmp_path), JOB)
    runner = runner_of(FullStore([scratch, first, tenth]), tmp_path)
    done = Done(job=JOB, attempt=2, severity="none", classes=("none",), artifacts=("file",))
    assert await asyncio.wait_for(runner._finish(Claim(JOB, 2, REQUEST), done), 10) is Outcome.SUCCEEDED
    assert [file.name for file in second.iterdir()] == ["file"]


async def test_what_an_attempt_left_is_kept_for_the_next_one_while_redis_is_away_for_another_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persist, "RETRY_S", 0.0)
    monkeypatch.setattr(module, "is_full", lambda _: False)
    folders = fill_job(Settings(home=tmp_path), JOB)
    runner = runner_of(FullStore(folders), tmp_path)
    failed = runner._fail(Claim(JOB, 2, REQUEST), job_error(ErrorCode.ENGINE_FAILED, "x"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(failed, 0.2)
    assert all((folder / "file").exists() for folder in folders)


class PlayedLease:
    """A lease over a Redis that is away at first."""

    def __init__(self) -> None:
        self.renewals = 0

    async def renew(self) -> None:
        self.renewals += 1
        if self.renewals < 3:
            raise RedisConnectionError("away")


async def test_a_lease_that_could_not_be_renewed_is_renewed_as_soon_as_redis_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class OverError(Exception):
        pass

    lease, pauses = PlayedLease(), list[float]()
    monkeypatch.setattr(Lease, "renew", lambda _: lease.renew())

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if lease.renewals == 4:
            raise OverError

    monkeypatch.setattr("workers.process.lease.asyncio.sleep", sleep)
    with pytest.raises(OverError):
        await Lease(cast(Docket, None), "w", "1-0").keep(10.0)
    assert pauses == [10.0, RETRY_S, RETRY_S, 10.0, 10.0], "and then as often as before"
