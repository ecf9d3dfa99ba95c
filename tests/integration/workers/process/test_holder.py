"""Whether a delivered job's worker lives: told by the next heartbeat, over a real server."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.jobs.connection import connect
from app.jobs.ids import new_job_id
from app.jobs.store import JobStore
from app.jobs.workers import WorkerInfo, announce
from app.kinds.compare.request import CompareRequest
from tests.integration.app.conftest import compare
from tests.integration.conftest import RedisServer
from workers.process.holder import living_holder

REQUEST = CompareRequest.model_validate(compare())


@pytest.fixture
async def store(redis_server: RedisServer) -> AsyncIterator[JobStore]:
    client = connect(redis_server.settings)
    yield JobStore(client, redis_server.settings)
    await client.aclose()


@pytest.fixture
async def job_id(store: JobStore) -> str:
    made = new_job_id()
    await store.create(made, REQUEST)
    return made


async def beat(store: JobStore, worker: str, job: str | None) -> None:
    await announce(store.client, WorkerInfo(id=worker, job=job))


async def seen(
    store: JobStore, job_id: str, monkeypatch: pytest.MonkeyPatch, *, watched_s: float = 600.0
) -> "asyncio.Task[str | None]":
    """A look by worker `b` that has read what the other one's last beat was, and has looked for another since."""
    task = asyncio.create_task(living_holder(store, job_id, "b", watched_s=watched_s))
    get, reads, twice = store.client.get, 0, asyncio.Event()

    async def counted(name: str) -> object:
        nonlocal reads
        found = await get(name)
        reads += 1
        if reads == 2:
            twice.set()
        return found

    monkeypatch.setattr(store.client, "get", counted)
    waiting = asyncio.create_task(twice.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    return task


async def test_a_job_that_nobody_has_or_the_worker_itself_is_free_at_once(store: JobStore, job_id: str) -> None:
    assert await asyncio.wait_for(living_holder(store, job_id, "b", watched_s=600), 60) is None
    await store.claim(job_id, "b")
    assert await asyncio.wait_for(living_holder(store, job_id, "b", watched_s=600), 60) is None
    assert await asyncio.wait_for(living_holder(store, new_job_id(), "b", watched_s=600), 60) is None


@pytest.mark.parametrize("before", [False, True])
async def test_a_worker_that_beats_for_the_job_has_it(
    store: JobStore, job_id: str, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.claim(job_id, "a")
    if before:
        await beat(store, "a", job_id)
    look = await seen(store, job_id, monkeypatch)
    assert not look.done(), "a beat from before says nothing"
    await beat(store, "a", job_id)
    assert await asyncio.wait_for(look, 60) == "a"


@pytest.mark.parametrize("doing", ["nothing", "another job", None])
async def test_a_worker_that_is_silent_or_does_something_else_has_it_no_more(
    store: JobStore, job_id: str, doing: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.claim(job_id, "a")
    await beat(store, "a", job_id)
    look = await seen(store, job_id, monkeypatch, watched_s=1.0)
    if doing is not None:
        await beat(store, "a", None if doing == "nothing" else new_job_id())
    assert await asyncio.wait_for(look, 60) is None


async def test_a_job_that_is_given_back_meanwhile_is_free_at_once(
    store: JobStore, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.claim(job_id, "a")
    look = await seen(store, job_id, monkeypatch)
    await store.release(job_id, 1)
    assert await asyncio.wait_for(look, 60) is None
