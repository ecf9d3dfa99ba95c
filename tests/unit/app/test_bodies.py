"""Large bodies are held a few at a time."""

import asyncio

import pytest
from starlette.requests import Request
from starlette.types import Message

from app.bodies import SMALL, Bodies, TooLargeError

LARGE = 10 * SMALL


class Client:
    """Sends a body part by part, when it is allowed to."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = iter(parts)
        self.sent = 0
        self.goes_on = asyncio.Event()

    async def _receive(self) -> Message:
        if self.sent:
            await self.goes_on.wait()
        part = next(self._parts, None)
        self.sent += 1
        return {"type": "http.request", "body": part or b"", "more_body": part is not None}

    def request(self) -> Request:
        return Request({"type": "http", "method": "POST", "headers": []}, self._receive)


@pytest.mark.parametrize("parts", [(), (b"a",), (b"a" * SMALL,), (b"a" * SMALL, b"b"), (b"a",) * 3])
async def test_all_of_a_body_is_parsed(parts: tuple[bytes, ...]) -> None:
    client = Client(*parts)
    client.goes_on.set()
    assert await Bodies(1).parsed(client.request(), bytes, limit=LARGE) == b"".join(parts)


@pytest.mark.parametrize("limit", [10, SMALL, SMALL + 1])
async def test_a_body_beyond_the_limit_is_not_read_on(limit: int) -> None:
    client = Client(*[b"a" * limit] * 5)
    client.goes_on.set()
    with pytest.raises(TooLargeError):
        await Bodies(1).parsed(client.request(), bytes, limit=limit)
    assert client.sent == 2


async def test_one_large_body_waits_for_another_and_a_small_one_does_not() -> None:
    bodies = Bodies(1)
    first, second = Client(b"a" * (SMALL + 1), b"b"), Client(b"a" * (SMALL + 1), b"b")
    second.goes_on.set()
    tasks = [asyncio.create_task(bodies.parsed(client.request(), len, limit=LARGE)) for client in (first, second)]
    await asyncio.sleep(0.05)
    assert second.sent == 1, "its second part is not read"
    small = Client(b"small")
    small.goes_on.set()
    assert await bodies.parsed(small.request(), len, limit=LARGE) == 5
    first.goes_on.set()
    assert await asyncio.gather(*tasks) == [SMALL + 2, SMALL + 2]


async def test_what_cannot_be_parsed_leaves_its_place() -> None:
    def refuse(_: bytes) -> None:
        raise ValueError

    bodies = Bodies(1)
    for _ in range(3):
        client = Client(b"a" * (SMALL + 1))
        client.goes_on.set()
        with pytest.raises(ValueError):
            await bodies.parsed(client.request(), refuse, limit=LARGE)
