"""Large bodies are held a few at a time."""

import asyncio
from dataclasses import replace

import pytest
from starlette.requests import Request

from app.bodies import SMALL, Bodies, TooLargeError
from app.contracts.errors import HemostatError
from app.security.scopes import KEY, LOCAL_USER

LARGE = 10 * SMALL


class Client:
    """Sends a body part by part, when it is allowed to."""

    def __init__(self, *parts):
        self._parts = iter(parts)
        self.sent = 0
        self.goes_on = asyncio.Event()

    async def _receive(self):
        if self.sent:
            await self.goes_on.wait()
        part = next(self._parts, None)
        self.sent += 1
        return {"type": "http.request", "body": part or b"", "more_body": part is not None}

    def request(self, owner="", address="127.0.0.1"):
        scope = {"type": "http", "method": "POST", "headers": [], "client": (address, 1)}
        return Request(scope | {KEY: replace(LOCAL_USER, owner=owner)}, self._receive)


@pytest.mark.parametrize("parts", [(), (b"a",), (b"a" * SMALL,), (b"a" * SMALL, b"b"), (b"a",) * 3])
async def test_all_of_a_body_is_parsed(parts):
    client = Client(*parts)
    client.goes_on.set()
    assert await Bodies(1).parsed(client.request(), bytes, limit=LARGE) == b"".join(parts)


@pytest.mark.parametrize("limit", [10, SMALL, SMALL + 1])
async def test_a_body_beyond_the_limit_is_not_read_on(limit):
    client = Client(*[b"a" * limit] * 5)
    client.goes_on.set()
    with pytest.raises(TooLargeError):
        await Bodies(1).parsed(client.request(), bytes, limit=limit)
    assert client.sent == 2


async def test_one_large_body_waits_for_another_and_a_small_one_does_not():
    bodies = Bodies(1)
    first, second = Client(b"a" * (SMALL + 1), b"b"), Client(b"a" * (SMALL + 1), b"b")
    second.goes_on.set()
    requests = first.request(owner="a"), second.request(owner="b")
    tasks = [asyncio.create_task(bodies.parsed(request, len, limit=LARGE)) for request in requests]
    await asyncio.sleep(0.05)
    assert second.sent == 1, "its second part is not read"
    small = Client(b"small")
    small.goes_on.set()
    assert await bodies.parsed(small.request(), len, limit=LARGE) == 5
    first.goes_on.set()
    assert await asyncio.gather(*tasks) == [SMALL + 2, SMALL + 2]


@pytest.mark.parametrize(
    ("slow", "other"), [({"owner": "a"}, {"owner": "b"}), ({"address": "192.0.2.1"}, {"address": "192.0.2.2"})]
)
async def test_slow_senders_of_one_client_delay_no_large_body_of_another(slow, other):
    bodies = Bodies(2)
    dawdling = [Client(b"a" * (SMALL + 1), b"b") for _ in range(4)]
    tasks = [asyncio.create_task(bodies.parsed(one.request(**slow), len, limit=LARGE)) for one in dawdling]
    await asyncio.sleep(0.05)
    quick = Client(b"a" * (SMALL + 1), b"b")
    quick.goes_on.set()
    async with asyncio.timeout(10):
        assert await bodies.parsed(quick.request(**other), len, limit=LARGE) == SMALL + 2
    assert not any(task.done() for task in tasks)
    for one in dawdling:
        one.goes_on.set()
    assert await asyncio.gather(*tasks) == [SMALL + 2] * 4


async def test_a_slow_sender_gives_its_place_back():
    bodies = Bodies(1, read_s=0.2)
    dawdling, quick = Client(b"a" * (SMALL + 1), b"b"), Client(b"a" * (SMALL + 1), b"b")
    quick.goes_on.set()
    task = asyncio.create_task(bodies.parsed(dawdling.request(owner="a"), len, limit=LARGE))
    await asyncio.sleep(0.05)
    assert await bodies.parsed(quick.request(owner="b"), len, limit=LARGE) == SMALL + 2
    with pytest.raises(HemostatError) as caught:
        await task
    assert caught.value.status == 408


async def test_what_cannot_be_parsed_leaves_its_place():
    def refuse(_):
        raise ValueError

    bodies = Bodies(1)
    for _ in range(3):
        client = Client(b"a" * (SMALL + 1))
        client.goes_on.set()
        with pytest.raises(ValueError):
            await bodies.parsed(client.request(), refuse, limit=LARGE)
