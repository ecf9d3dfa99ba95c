import asyncio
import json
from typing import Any

import pytest

from app.contracts.errors import ErrorCode
from app.gateway.errors import ApiError
from app.gateway.sse import KEEP_ALIVE
from app.gateway.watching import until_left
from app.gateway.writer import SlowClientError, Writer


class Client:
    """Takes messages, or not."""

    def __init__(self):
        self.lively = asyncio.Event()  # it has got three signs of life
        self.messages: list[dict[str, Any]] = []
        self.reads = asyncio.Event()
        self.reads.set()

    async def send(self, message):
        await self.reads.wait()
        self.messages.append(message)
        if self.text.count(KEEP_ALIVE) == 3:
            self.lively.set()

    @property
    def text(self):
        return b"".join(message.get("body", b"") for message in self.messages)


def writer(client, *, heartbeat_s=60, timeout_s=60):
    return Writer(client.send, heartbeat_s=heartbeat_s, timeout_s=timeout_s)


async def test_nothing_is_sent_before_the_first_event():
    client = Client()
    stream = writer(client)
    async with stream.open({"x-hemostat-calibration": "identity"}):
        assert (client.messages, stream.started) == ([], False)
        await stream.event(b"a")
        await stream.event(b"b", b"named")
        await stream.done()
    start, *_, last = client.messages
    assert start["status"] == 200
    headers = dict(start["headers"])
    assert headers[b"x-hemostat-calibration"] == b"identity"
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert client.text == b"data: a\n\nevent: named\ndata: b\n\ndata: [DONE]\n\n"
    assert last["more_body"] is False


async def test_signs_of_life_are_sent_while_nothing_else_is():
    client = Client()
    stream = writer(client, heartbeat_s=0.01)
    async with stream.open({}):
        async with asyncio.timeout(90):
            await client.lively.wait()
        await stream.done()
    sent = client.text
    await asyncio.sleep(0.05)
    assert client.text == sent
    assert sent.endswith(b"data: [DONE]\n\n")


async def test_a_stream_ends_once():
    client = Client()
    stream = writer(client)
    await stream.event(b"a")
    error = ApiError(ErrorCode.REPLICA_UNAVAILABLE, "Lost.")
    await stream.fail(error)
    await stream.fail(error)
    await stream.done()
    (_, event) = client.text.decode().strip().split("\n\n")
    assert json.loads(event.removeprefix("data: "))["error"]["code"] == "replica_unavailable"
    typed = Client()
    await writer(typed).fail(error, typed=True)
    name, data = typed.text.decode().strip().split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: "))["type"] == "error"


async def test_a_client_that_does_not_read_is_given_up():
    client = Client()
    stream = writer(client, timeout_s=0.02)
    await stream.event(b"a")
    client.reads.clear()
    with pytest.raises(SlowClientError):
        await stream.event(b"b")


async def run(work, *, left=None, stopping=None, drain_s=1.0):
    async def receive():
        await (left or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    return await until_left(work, receive, stopping or asyncio.Event(), drain_s)


async def test_work_is_stopped_when_its_client_leaves_or_the_process_goes():
    stopped: list[str] = []

    async def work(name):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.append(name)
            raise

    left, stopping = asyncio.Event(), asyncio.Event()
    left.set()
    stopping.set()
    assert await run(work("a"), left=left) == "client"
    assert await run(work("b"), stopping=stopping) == "shutdown"
    assert stopped == ["a", "b"]


async def test_work_that_ends_is_told_and_what_it_raises_is_raised():
    async def good():
        await asyncio.sleep(0)

    async def bad():
        raise ApiError(ErrorCode.UNAVAILABLE, "x")

    assert await run(good()) == "done"
    with pytest.raises(ApiError):
        await run(bad())
    stopping = asyncio.Event()
    stopping.set()
    assert await run(good(), stopping=stopping, drain_s=30) == "done", "there is time to finish"


async def test_who_is_cancelled_cancels_the_work():
    ended = asyncio.Event()

    async def work():
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(run(work()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
