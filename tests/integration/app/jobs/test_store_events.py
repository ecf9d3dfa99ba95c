"""The events of a job against a real server: bounded, numbered, waited for."""

import asyncio
import json
from typing import Any

import pytest
from redis.asyncio import Redis

from app.contracts.job import Progress
from app.jobs.connection import redis_url
from app.jobs.event_log import MESSAGE_PAGE, MESSAGE_PAGES
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


@pytest.mark.parametrize(
    ("since", "found", "most"),
    [
        (0, "the last line", MESSAGE_PAGE),
        (MESSAGE_PAGE - 1, "the last line", MESSAGE_PAGE),
        (MESSAGE_PAGE, "the last line", 2 * MESSAGE_PAGE),
        (MESSAGE_PAGE * MESSAGE_PAGES - 1, "the last line", MESSAGE_PAGE * MESSAGE_PAGES),
        (MESSAGE_PAGE * MESSAGE_PAGES, None, MESSAGE_PAGE * MESSAGE_PAGES),
    ],
)
async def test_the_latest_line_is_found_without_reading_all_events(
    store: JobStore, monkeypatch: pytest.MonkeyPatch, since: int, found: str | None, most: int
) -> None:
    job_id = await created(store)
    await store.claim(job_id, "w1")
    step = Progress(phase="candidate", done=1, total=2600)
    for _ in range(60):
        await store.progress(job_id, 1, step)
    for line in ("the first line", "the last line"):
        await store.log(job_id, 1, line)
    for first in range(0, since, MESSAGE_PAGE):  # not all at one time, which a busy machine may take too long for
        await asyncio.gather(*(store.progress(job_id, 1, step) for _ in range(min(MESSAGE_PAGE, since - first))))
    read: list[int] = []
    xrevrange = store.client.xrevrange

    async def counted(*arguments: Any, **options: Any) -> Any:
        entries = await xrevrange(*arguments, **options)
        read.append(len(entries))
        return entries

    monkeypatch.setattr(store.client, "xrevrange", counted)
    assert await store.latest_message(job_id) == found
    assert sum(read) == most


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


async def test_a_read_that_is_given_up_leaves_the_client_usable(store: JobStore) -> None:
    job_id = await created(store)
    for _ in range(20):
        reading = asyncio.create_task(store.events(job_id, 1, block_s=2))
        await asyncio.sleep(0.005)  # given up in the middle of its read, not before it
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        record = await got(store, job_id)
        assert record.job.id == job_id


# --- lists
