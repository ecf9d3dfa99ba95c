import asyncio

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from app.gateway.directory import Directory
from app.gateway.errors import ApiError
from tests.unit.app.gateway.test_replicas import deployment, replica


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Store:
    def __init__(self, *held):
        self.held = list(held)
        self.away = False
        self.reads = 0
        self.changes = 0
        self.slow: asyncio.Event | None = None

    async def list(self):
        self.reads += 1
        held = list(self.held)
        await asyncio.sleep(0)
        if self.slow is not None:
            await self.slow.wait()
        if self.away:
            raise RedisConnectionError
        return held


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_list_is_read_once_and_behind_the_look_up_before_it_is_a_second_old():
    clock, store = Clock(), Store(deployment(name="a"))
    directory = Directory(store, clock=clock)
    await asyncio.gather(*(directory.find("a") for _ in range(10)))
    assert store.reads == 1
    store.held = [deployment(name="a", active_version="cal-000000000000000a")]
    clock.now = 0.4
    await directory.find("a")
    await settle()
    assert store.reads == 1
    clock.now = 0.8
    assert (await directory.find("a")).active_version == "identity", "from memory, and it is read behind"
    await settle()
    assert (await directory.find("a")).active_version == "cal-000000000000000a"
    assert store.reads == 2


@pytest.mark.parametrize("age", [1.01, 1.5, 2, 3, 4, 5, 6, 7, 8, 9, 9.9, 10, 100])
async def test_a_list_that_is_older_than_a_second_is_not_used(age):
    clock, store = Clock(), Store(deployment(name="a"))
    directory = Directory(store, clock=clock)
    await directory.find("a")
    store.held = [deployment(name="a", active_version="cal-000000000000000a")]
    clock.now = age
    found = await asyncio.gather(*(directory.find("a") for _ in range(10)))
    assert {one.active_version for one in found} == {"cal-000000000000000a"}
    assert store.reads == 2, "one read for all"


async def test_the_age_counts_from_when_the_read_began():
    clock, store = Clock(), Store(deployment(name="a"))
    directory = Directory(store, clock=clock)
    store.slow = asyncio.Event()
    first = asyncio.create_task(directory.find("a"))
    await settle()
    clock.now = 0.9
    store.slow.set()
    await first
    clock.now = 1.1
    await directory.find("a")
    assert store.reads == 2


async def test_a_change_that_this_process_made_holds_for_the_next_look_up():
    clock, store = Clock(), Store(deployment(name="a"))
    directory = Directory(store, clock=clock)
    await directory.find("a")
    store.held = [deployment(name="a", active_version="cal-000000000000000a")]
    store.changes += 1
    assert (await directory.find("a")).active_version == "cal-000000000000000a"
    assert store.reads == 2
    # a read that began before the change tells nothing of it
    clock.now, store.slow = 2, asyncio.Event()
    early = asyncio.create_task(directory.find("a"))
    await settle()
    store.held = [deployment(name="a")]
    store.changes += 1
    late = asyncio.create_task(directory.find("a"))
    await settle()
    store.slow.set()
    assert (await late).active_version == "identity"
    await early
    assert store.reads == 4


async def test_an_outage_that_was_seen_long_ago_is_looked_at_anew():
    clock, store = Clock(), Store(deployment(name="a"))
    directory = Directory(store, clock=clock)
    await directory.find("a")
    store.away = True
    clock.now = 5
    await directory.find("a")
    assert directory.stale
    store.away = False
    store.held = [deployment(name="a", active_version="cal-000000000000000a")]
    clock.now = 500
    assert (await directory.find("a")).active_version == "cal-000000000000000a"


async def test_a_name_that_is_not_known_is_looked_for_before_it_is_404():
    store = Store(deployment(name="smollm2-w4"))
    directory = Directory(store, clock=Clock())
    await directory.find("smollm2-w4")
    store.held.append(deployment(name="new"))
    assert (await directory.find("new")).name == "new"
    with pytest.raises(ApiError) as caught:
        await directory.find("smollm2-w8")
    assert (caught.value.status, caught.value.param) == (404, "model")
    assert "smollm2-w4" in caught.value.hint


async def test_while_redis_is_away_the_last_list_stands():
    clock, store = Clock(), Store(deployment(replica("r"), name="a"))
    directory = Directory(store, clock=clock)
    await directory.find("a")
    store.away = True
    for clock.now in range(2, 200):
        assert (await directory.find("a")).running[0].id == "r"
        await settle()
    assert directory.stale
    assert store.reads > 50
    with pytest.raises(ApiError) as caught:
        await directory.find("unknown")
    assert caught.value.status == 404


async def test_without_any_list_it_is_503():
    store = Store()
    store.away = True
    with pytest.raises(ApiError) as caught:
        await Directory(store, clock=Clock()).all()
    assert (caught.value.status, caught.value.retry_after_s) == (503, 2)


async def test_replicas_whose_lease_ran_out_in_an_outage_are_kept_until_they_are_back():
    clock, store = Clock(), Store(deployment(replica("r"), name="a"))
    directory = Directory(store, clock=clock)
    await directory.find("a")
    store.away = True
    clock.now = 20
    await directory.find("a")
    await settle()
    store.away = False
    store.held = [deployment(name="a")]
    clock.now = 22
    await directory.refresh()
    assert [found.id for found in (await directory.find("a")).running] == ["r"]
    clock.now = 40
    await directory.refresh()
    assert (await directory.find("a")).running == ()
