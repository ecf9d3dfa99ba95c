"""A job in the store, for tests of what becomes of it."""

import pytest

from app.contracts.job import JobStatus
from app.jobs.ids import new_job_id
from app.jobs.record import JobRecord
from app.jobs.store import Claim, JobStore
from app.kinds.compare.request import CompareRequest
from tests.integration.app.conftest import compare

REPORT = {
    "report": "attempt-1/report.json",
    "severity": "mild",
    "classes": ["none", "mild"],
    "answer": "Mild up to sparsity 0.4",
    "artifacts": ["tokens.npz"],
}


def request(**changes: object) -> CompareRequest:
    return CompareRequest.model_validate(compare(**changes))


async def created(store: JobStore, **changes: object) -> str:
    job_id = new_job_id()
    assert (await store.create(job_id, request(**changes))).kind == "created"
    return job_id


async def got(store: JobStore, job_id: str) -> JobRecord:
    record = await store.get(job_id)
    assert record is not None
    return record


async def claimed(store: JobStore, job_id: str, worker: str = "w1", token: str | None = None) -> Claim:
    claim = await store.claim(job_id, worker, token=token)
    assert claim is not None
    return claim


async def status(store: JobStore, job_id: str) -> JobStatus:
    return (await got(store, job_id)).job.status


def jumped(store: JobStore, seconds: float, monkeypatch: pytest.MonkeyPatch) -> JobStore:
    """The same jobs over a Redis whose clock is wrong by so much from now on."""
    other = JobStore(store.client, store.settings)
    wrong = f"(function() local t = redis.call('TIME') t[1] = t[1] + {seconds:.0f} return t end)()"
    for name, script in store._scripts.items():
        assert "redis.call('TIME')" in script.script
        other._scripts[name] = store.client.register_script(script.script.replace("redis.call('TIME')", wrong))
    right = store.now

    async def now() -> float:
        return await right() + seconds

    monkeypatch.setattr(other, "now", now)
    return other
