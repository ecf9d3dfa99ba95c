"""The runner's parts that need no child process, over a record that a test plays."""

from pathlib import Path
from typing import cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from app.contracts.job import JobStatus
from app.contracts.requests.compare import CompareRequest
from app.jobs.ids import new_job_id
from app.jobs.record import Claim, JobRecord, read_record, request_fields
from app.jobs.store import JobStore
from app.settings import Settings
from tests.support.job_folders import fill_job
from workers.process import runner as module
from workers.process.drain import Drain
from workers.process.lease import Lease
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


def runner_of(store: PlayedStore, home: Path) -> Runner:
    settings = Settings(home=home)
    return Runner(settings, cast(JobStore, store), Telemetry(), worker="w", handlers="no:handlers", drain=Drain())


async def test_a_claim_whose_reply_was_lost_is_tried_again_as_the_same_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    store = PlayedStore()
    runner = runner_of(store, tmp_path)
    no_lease = cast(Lease, None)
    await runner.run(JOB, no_lease)
    await runner.run(JOB, no_lease)
    first, again, second, _ = store.tokens
    assert first is not None
    assert first == again
    assert second != first, "another delivery is another claim"


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
