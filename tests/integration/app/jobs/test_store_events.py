"""The events of a job against a real server: bounded, numbered, waited for."""

import asyncio
import json

import pytest
from redis.asyncio import Redis

from app.contracts.job import Progress
from app.jobs.connection import redis_url
from app.jobs.ids import new_job_id
from app.jobs.store import JobStore
from app.settings import Settings
from tests.integration.app.jobs.stored import REPORT, created, got
from tests.integration.conftest import RedisServer


@pytest.fixture
def settings_of(redis_server: RedisServer) -> Settings:
    return redis_server.settings


async def test_events_are_bounded_and_their_numbers_show_what_is_missing(store: JobStore) -> None:
    job_id = await created(store)
    await store.claim(job_id, "w1")
    for _ in range(26):
        step = Progress(phase="candidate", done=1, total=2600)
        await asyncio.gather(*(store.progress(job_id, 1, step) for _ in range(100)))
    await store.finish(job_id, 1, **REPORT)
    oldest = (await store.events(job_id, 0, count=1))[0].number
    assert oldest is not None
    assert oldest > 400
    record = await got(store, job_id)
    assert record.events == 2604
    events = await store.events(job_id, 0, count=10_000)
    assert [event.number for event in events] == list(range(oldest, 2605))
    assert len(events) < 2300
    assert json.loads(events[-1].data)["type"] == "end"


async def test_a_job_without_a_line_has_no_latest_one(store: JobStore) -> None:
    job_id = await created(store)
    assert await store.latest_message(job_id) is None
    assert await store.latest_message(new_job_id()) is None


async def test_a_blocking_read_wakes_up_at_the_next_event(store: JobStore, settings_of: Settings) -> None:
    job_id = await created(store)
    # It waits for longer than a connection of the service may, and than any pause of this process.
    async with Redis.from_url(redis_url(settings_of), decode_responses=True, socket_timeout=700) as patient:
        reading = asyncio.create_task(JobStore(patient, settings_of).events(job_id, 1, block_s=600))
        await asyncio.sleep(0.1)  # a read that does not wait would be done by then
        assert not reading.done()
        await store.claim(job_id, "w1")
        assert [event.number for event in await asyncio.wait_for(reading, 60)] == [2]
    assert await store.events(job_id, 2, block_s=0.05) == []


# --- lists
