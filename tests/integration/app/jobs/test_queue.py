"""docket over a real server: what is submitted is delivered, and what fell between two writes is put right."""

import asyncio
import errno
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from docket import Docket, Worker
from redis.asyncio import Redis

from app.contracts.errors import ErrorCode
from app.contracts.job import JobStatus, job_error
from app.jobs import keys, queue
from app.jobs.reconcile import Swept, run, sweep
from app.jobs.store import JobStore
from app.jobs.workers import WorkerInfo, announce, leave, living
from app.settings import Settings
from tests.integration.app.jobs.stored import claimed, created, got
from tests.integration.conftest import RedisServer
from tests.support.refusals import refused
from workers.main import with_device


@pytest.fixture
async def docket(redis_server: RedisServer) -> AsyncIterator[Docket]:
    async with queue.make_docket(redis_server.settings) as made:
        yield made


async def swept(
    store: JobStore, docket: Docket, remove_files: Callable[[str], None] = lambda _: None, **changes: float
) -> Swept:
    return await sweep(store, docket, store.settings.model_copy(update=changes), remove_files)


async def run_worker(store: JobStore) -> list[str]:
    """A real docket worker with a task of the twin's name, until nothing is left to do."""
    ran: list[str] = []

    async def run_job(job_id: str) -> None:
        claim = await store.claim(job_id, "w1")
        if claim is not None:
            ran.append(job_id)
            await store.finish(job_id, claim.attempt, report="attempt-1/report.json", severity="none")

    async with queue.make_docket(store.settings) as docket:
        docket.register(run_job)
        async with Worker(docket, concurrency=1, redelivery_timeout=timedelta(minutes=2)) as worker:
            await asyncio.wait_for(worker.run_until_finished(), 90)
    return ran


async def test_the_twin_reaches_the_workers_function(store: JobStore, docket: Docket) -> None:
    ids = [await created(store) for _ in range(3)]
    for job_id in ids:
        assert await queue.submit(docket, job_id)
        assert await queue.submit(docket, job_id), "submitting twice is submitting once"
    assert await run_worker(store) == ids
    for job_id in ids:
        record = await got(store, job_id)
        assert record.job.status is JobStatus.SUCCEEDED
        assert record.job.attempt == 1


async def test_a_withdrawn_job_is_not_delivered(store: JobStore, docket: Docket) -> None:
    kept, dropped = await created(store), await created(store)
    await queue.submit(docket, dropped)
    await queue.submit(docket, kept)
    await store.cancel(dropped)
    assert await queue.withdraw(docket, dropped)
    assert await queue.known(docket, [kept, dropped, "other"]) == {kept: True, dropped: False, "other": False}
    assert await run_worker(store) == [kept]


async def test_a_record_that_docket_never_heard_of_is_submitted_by_the_sweep(store: JobStore, docket: Docket) -> None:
    lost, told = await created(store), await created(store)
    await queue.submit(docket, told)
    done = await swept(store, docket)
    assert (done.resubmitted, done.cancelled, done.forgotten) == (1, 0, 0)
    assert (await swept(store, docket)).resubmitted == 0
    assert sorted(await run_worker(store)) == sorted([lost, told])


async def test_a_record_of_another_version_keeps_no_sweep_from_others(
    store: JobStore, docket: Docket, client: Redis
) -> None:
    for _ in range(105):  # more than a page
        await client.hset(keys.job(await created(store)), "candidate", "[]")
    old = await created(store)
    await client.hset(keys.job(await created(store)), "candidate", "[]")
    assert (await swept(store, docket)).resubmitted == 107, "each has its turn"
    assert (await queue.known(docket, [old]))[old]


async def test_a_released_job_is_delivered_again(store: JobStore, docket: Docket) -> None:
    job_id = await created(store)
    await queue.submit(docket, job_id)
    async with queue.make_docket(store.settings) as other:

        async def run_job(job_id: str) -> None:
            claim = await claimed(store, job_id)
            await store.release(job_id, claim.attempt)

        other.register(run_job)
        async with Worker(other, concurrency=1) as worker:
            await asyncio.wait_for(worker.run_until_finished(), 90)
    assert (await swept(store, docket)).resubmitted == 1
    assert await run_worker(store) == [job_id]


@pytest.mark.parametrize("cancelling", [False, True])
async def test_a_job_whose_task_ended_without_ending_it_is_put_right(
    store: JobStore, docket: Docket, client: Redis, cancelling: bool
) -> None:
    job_id = await created(store)
    await store.claim(job_id, "w1")
    if cancelling:
        await store.cancel(job_id)
    young = await swept(store, docket, redelivery_s=600.0)
    assert (young.resubmitted, young.cancelled) == (0, 0), "it is too young to be given up"
    await asyncio.sleep(1.1)
    await announce(client, WorkerInfo(id="w1", job=job_id), expiry_s=600)
    idle = await swept(store, docket, redelivery_s=1.0)
    assert (idle.resubmitted, idle.cancelled) == (0, 0), "its worker lives and names it"
    await announce(client, WorkerInfo(id="w1", job=None), expiry_s=600)
    removed: list[str] = []
    done = await swept(store, docket, removed.append, redelivery_s=1.0)
    assert (done.resubmitted, done.cancelled) == ((0, 1) if cancelling else (1, 0))
    assert removed == ([job_id] if cancelling else []), "a running one is resumed from them"
    record = await got(store, job_id)
    assert record.job.status is (JobStatus.CANCELLED if cancelling else JobStatus.RUNNING)


async def test_what_ended_long_ago_is_forgotten_with_its_files(store: JobStore, docket: Docket) -> None:
    old, active = await created(store), await created(store)
    await store.claim(old, "w1")
    await store.fail(old, 1, job_error(ErrorCode.ENGINE_FAILED, "x"))
    removed: list[str] = []
    assert (await swept(store, docket, removed.append)).forgotten == 0
    assert (await swept(store, docket, removed.append, job_retention_s=0)).forgotten == 1
    assert removed == [old]
    assert await store.get(old) is None
    assert await store.get(active) is not None


async def test_files_that_cannot_be_removed_keep_their_own_job_only(
    store: JobStore, docket: Docket, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = [await created(store) for _ in range(3)]
    for job_id in jobs:
        await store.cancel(job_id)
    settings = store.settings.model_copy(update={"job_retention_s": 0})
    stuck, waits = jobs[1], 0

    def remove_files(job_id: str) -> None:
        if job_id == stuck and waits < 3:
            raise PermissionError(errno.EACCES, "Permission denied", f"jobs/{job_id}/attempt-1")

    async def wait(_: float) -> bool:
        nonlocal waits
        waits += 1
        assert [job_id for job_id in jobs if await store.get(job_id)] == ([stuck] if waits < 4 else [])
        return waits == 4

    await asyncio.wait_for(run(store, docket, settings, remove_files, wait), 90)
    (told,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert stuck in told
    assert "Permission denied" in told


async def test_sweeping_goes_on_whatever_one_sweep_meets(store: JobStore, docket: Docket, client: Redis) -> None:
    job_id = await created(store)
    await store.cancel(job_id)
    settings = store.settings.model_copy(update={"job_retention_s": 0})
    faults: list[Exception] = [RuntimeError("unforeseen"), PermissionError("a folder of somebody else's")]
    waits = 0

    def remove_files(_: str) -> None:
        if faults:
            raise faults.pop()

    async def wait(_: float) -> bool:
        nonlocal waits
        waits += 1
        return waits == 3

    await asyncio.wait_for(run(store, docket, settings, remove_files, wait), 90)
    assert await store.get(job_id) is None


async def test_a_submission_without_redis_is_reported(
    store: JobStore, docket: Docket, redis_server: RedisServer
) -> None:
    job_id = await created(store)
    redis_server.kill()
    assert not await queue.submit(docket, job_id, timeout_s=0.5)
    assert not await queue.withdraw(docket, job_id, timeout_s=0.5)
    redis_server.start()
    assert await queue.submit(docket, job_id, timeout_s=60)


async def test_workers_are_listed_while_their_heart_beats(client: Redis) -> None:
    began = time.time()
    await announce(client, WorkerInfo(id="w2", device="cpu", job="diag_x"), expiry_s=600)
    await announce(client, WorkerInfo(id="w1"), expiry_s=600)
    alive = await living(client)
    assert [(worker.id, worker.job) for worker in alive] == [("w1", None), ("w2", "diag_x")]
    assert all(began <= worker.seen_at <= time.time() for worker in alive)
    await announce(client, WorkerInfo(id="w1"), expiry_s=1)
    async with asyncio.timeout(60):
        while len(await living(client)) == 2:  # noqa: ASYNC110 - it is Redis that forgets
            await asyncio.sleep(0.1)
    assert [worker.id for worker in await living(client)] == ["w2"]
    await leave(client, "w2")
    assert await living(client) == []


async def test_no_worker_lives_on_because_the_clock_of_redis_went_back(client: Redis) -> None:
    for name in ("dead", "alive"):
        await announce(client, WorkerInfo(id=name))
        await client.expire(keys.worker(name), 30 * 86_400)
    assert await living(client) == []
    await announce(client, WorkerInfo(id="alive"))
    assert [worker.id for worker in await living(client)] == ["alive"]


def test_the_queue_needs_no_fastapi() -> None:
    import subprocess
    import sys

    program = (
        "import sys\nimport app.jobs.store, app.jobs.queue, app.jobs.connection, app.jobs.workers, app.jobs.reconcile, "
        "app.jobs.embedded\nassert not {'fastapi', 'starlette', 'uvicorn', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).resolve().parents[4], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


async def test_a_worker_without_the_device_that_it_was_told_to_use_is_listed_no_more(
    client: Redis, tmp_path: Path
) -> None:
    starting = WorkerInfo(id="w1", starting=True)
    await announce(client, starting, expiry_s=600)
    with refused(ErrorCode.ENGINE_FAILED):
        await with_device(client, Settings(home=tmp_path, engine_device="cuda"), starting)
    assert not await living(client)
