import asyncio

import pytest

from app.admission import Line
from app.contracts.errors import HemostatError


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def line(clock=None, *, per_replica=2, most_queued=2, timeout_s=60):
    return Line(per_replica=per_replica, most_queued=most_queued, timeout_s=timeout_s, clock=clock or Clock())


async def settle():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_places_are_given_in_the_order_of_asking():
    queue = line(per_replica=1, most_queued=10)
    order: list[int] = []
    release = [asyncio.Event() for _ in range(4)]

    async def one(number):
        async with queue.place():
            order.append(number)
            await release[number].wait()

    tasks = []
    for number in range(4):
        tasks.append(asyncio.create_task(one(number)))
        await settle()
    assert (order, queue.in_flight, queue.queued) == ([0], 1, 3)
    for number in range(4):
        release[number].set()
        await settle()
    assert order == [0, 1, 2, 3]
    await asyncio.gather(*tasks)
    assert (queue.in_flight, queue.queued) == (0, 0)


async def test_beyond_the_queue_is_429_with_the_time_that_the_queue_takes():
    clock = Clock()
    queue = line(clock, per_replica=1, most_queued=3)
    for _ in range(40):  # requests take 6 s
        async with queue.place():
            clock.now += 6
    stop = asyncio.Event()

    async def hold():
        async with queue.place():
            await stop.wait()

    tasks = [asyncio.create_task(hold()) for _ in range(4)]
    await settle()
    with pytest.raises(HemostatError) as caught:
        async with queue.place():
            raise AssertionError("let in")
    assert caught.value.status == 429
    assert caught.value.retry_after_s == 24  # three wait, and the one that asks: 4 times 6 s
    queue.resize(2)
    await settle()
    assert queue.retry_after_s() == 9  # two wait, over two places: 3 times 6 s, by two
    stop.set()
    await asyncio.gather(*tasks)


async def test_a_queue_that_is_empty_asks_for_a_second():
    assert line(Clock()).retry_after_s() == 1


async def test_waiting_has_an_end():
    queue = line(per_replica=1, timeout_s=0.02)
    async with queue.place():
        with pytest.raises(HemostatError) as caught:
            async with queue.place():
                raise AssertionError("let in")
        assert (caught.value.status, caught.value.code) == (503, "replica_unavailable")
        assert caught.value.retry_after_s
        assert queue.queued == 0
    async with queue.place():
        pass


async def test_who_leaves_at_the_moment_that_its_place_is_given_gives_it_on():
    queue = line(per_replica=1, most_queued=5)

    async def pass_through():
        async with queue.place():
            pass

    async with queue.place():
        first, second = asyncio.create_task(pass_through()), asyncio.create_task(pass_through())
        await settle()
        assert (queue.in_flight, queue.queued) == (1, 2)
    assert (queue.in_flight, queue.queued) == (1, 1)  # the place is the first one's, which has not run since
    first.cancel()
    await settle()
    assert first.cancelled() and second.done()
    assert (queue.in_flight, queue.queued) == (0, 0)
    await pass_through()


async def test_a_newcomer_waits_behind_who_waits():
    queue = line(per_replica=1, most_queued=5)
    order: list[str] = []

    async def one(name):
        async with queue.place():
            order.append(name)

    async with queue.place():
        waiting = asyncio.create_task(one("who waited"))
        await settle()
    # The place is free, and the one that waited has not run since.
    await one("newcomer")
    await waiting
    assert order == ["who waited", "newcomer"]
    assert (queue.in_flight, queue.queued) == (0, 0)


async def test_who_leaves_the_queue_loses_no_place():
    queue = line(per_replica=1, most_queued=5)
    stop = asyncio.Event()

    async def hold():
        async with queue.place():
            await stop.wait()

    tasks = [asyncio.create_task(hold()) for _ in range(4)]
    await settle()
    tasks[2].cancel()
    await settle()
    assert queue.queued == 2
    tasks[0].cancel()
    tasks[1].cancel()
    await settle()
    assert (queue.in_flight, queue.queued) == (1, 0)
    stop.set()
    await tasks[3]
    assert queue.in_flight == 0


# --- owners


async def hold(queue, owner, order, stop):
    async with queue.place(owner):
        order.append(owner)
        await stop.wait()


async def test_owners_have_their_turns_in_a_circle():
    queue = line(per_replica=1, most_queued=20)
    order: list[str] = []
    stop = asyncio.Event()
    stop.set()  # each ends at once and lets the next one in
    async with queue.place("first"):
        tasks = [asyncio.create_task(hold(queue, owner, order, stop)) for owner in "aaaaabcab"]
        await settle()
        assert queue.queued == 9
    await asyncio.gather(*tasks)
    assert "".join(order) == "abcabaaaa"
    assert (queue.in_flight, queue.queued) == (0, 0)


async def test_an_owner_holds_a_share_of_the_places_and_of_the_queue():
    queue = Line(per_replica=8, most_queued=4, timeout_s=60, owner_share=0.75)
    order: list[str] = []
    stop = asyncio.Event()
    tasks = [asyncio.create_task(hold(queue, "greedy", order, stop)) for _ in range(9)]
    await settle()
    assert (queue.in_flight, queue.queued) == (6, 3)
    with pytest.raises(HemostatError, match="owner") as caught:
        async with queue.place("greedy"):
            raise AssertionError("let in")
    assert caught.value.status == 429
    others = [asyncio.create_task(hold(queue, "modest", order, stop)) for _ in range(3)]
    await settle()
    assert order.count("modest") == 2  # at once: nothing waits that could take these places
    assert (queue.in_flight, queue.queued) == (8, 4)
    stop.set()
    await asyncio.gather(*tasks, *others)
    assert (queue.in_flight, queue.queued) == (0, 0)


async def test_who_leaves_the_queue_takes_no_turn_of_the_others():
    queue = line(per_replica=1, most_queued=20)
    order: list[str] = []
    stop = asyncio.Event()
    stop.set()
    async with queue.place("first"):
        tasks = [asyncio.create_task(hold(queue, owner, order, stop)) for owner in "aabb"]
        await settle()
        for task in tasks[:2]:
            task.cancel()
        await settle()
        assert queue.queued == 2
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == ["b", "b"]
    assert queue.in_flight == 0
