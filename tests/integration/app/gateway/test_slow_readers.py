"""Readers slower than their replica, which here writes without end: no buffer on the way can hold it all. And one that
closes its own half of the connection."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.integration.app.gateway.conftest import KEY, Service, running_api
from tests.support.endless import Endless, endless

MIB = 1 << 20
DONE = b"[DONE]"
SLEEPERS = 3
# Of one stream, in both kernels' buffers and in the processes between replica and reader. Linux lets a socket's buffers
# grow to 4 MiB (sending) and 6 MiB (receiving), twice on the way.
MOST_UNREAD = 24 * MIB
# So often in a row nothing may have moved: once may be a gateway that a busy machine did not let run.
STANDSTILL_S = 0.75
STANDSTILLS = 4


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_api(tmp_path_factory.mktemp("slow") / "home", "http://127.0.0.1:9") as made:
        yield made


async def sleeper(service: Service, name: str, model: str = "slow") -> socket.socket:
    """A client that has asked for a stream without end and reads nothing."""
    body = json.dumps({"model": model, "prompt": "a", "user": name, "max_tokens": 0, "stream": True}).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(made, ("127.0.0.1", int(service.url.rpartition(":")[2])))
    await loop.sock_sendall(made, head + body)
    return made


async def stand_still(replica: Endless, names: list[str]) -> int:
    """Waits until nothing more of these streams is taken from the replica; the bytes of the longest."""
    deadline = time.monotonic() + 120
    before: list[int] = []
    still = 0
    while True:
        now = [replica.written.get(name, -1) for name in names]
        still = still + 1 if now == before and min(now) > 0 else 0
        if still == STANDSTILLS:
            return max(now)
        assert time.monotonic() < deadline, now
        assert max(now) < 4 * MOST_UNREAD, "the gateway reads on for nobody"
        before = now
        await asyncio.sleep(STANDSTILL_S)


async def test_slow_readers_stop_their_replica_and_hold_up_nobody(service: Service) -> None:
    async with endless() as replica, service.http() as http:
        await service.deploy("slow", service.replica("serve-0", replica.url))
        for turn in range(2):  # what is made once, for so many readers at a time, is not a sleeper's
            await asyncio.gather(*(answered(http, f"warm-{turn}-{number}") for number in range(SLEEPERS)))
        api = psutil.Process(service.pid)
        names = [f"sleeper-{number}" for number in range(2 * SLEEPERS)]
        sleepers: list[socket.socket] = []
        held = []
        try:
            # What a sleeper holds of this process is its own buffers: a megabyte or two, not what the replica has. The
            # heap of a process that shares its processors grows by more now and then, whoever sleeps; that it does so
            # once does not hide in two rounds, of which the first one's sleepers sleep on.
            for some in (names[:SLEEPERS], names[SLEEPERS:]):
                before = api.memory_info().rss
                sleepers += [await sleeper(service, name) for name in some]
                unread = await stand_still(replica, some)
                assert unread < MOST_UNREAD
                held.append(api.memory_info().rss - before)
            assert min(held) < SLEEPERS * 3 * MIB, f"{held} bytes, of {unread} that one of them has not read"
            await asyncio.gather(*(answered(http, f"quick-{number}") for number in range(4)))
            assert [replica.written[name] for name in names] == [await stand_still(replica, [name]) for name in names]
            await reads_on(sleepers[-1], unread + 2 * MIB)
        finally:
            for one in sleepers:
                one.close()
        deadline = time.monotonic() + 60
        while not replica.left.issuperset(names):
            assert time.monotonic() < deadline, "the replica writes on for readers that have gone"
            await asyncio.sleep(0.1)
        while service.metric("hemostat_gateway_in_flight_requests", deployment="slow"):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)


async def answered(http: httpx.AsyncClient, name: str, model: str = "slow") -> None:
    """A reader that reads at once gets every event, in order."""
    body = {"model": model, "prompt": "a", "user": name, "max_tokens": 500, "stream": True}
    async with http.stream("POST", "/v1/completions", json=body) as answer:
        lines = [line async for line in answer.aiter_lines() if line.startswith("data: ")]
    texts = [json.loads(line[6:])["choices"][0]["text"] for line in lines[:-1]]
    assert [int(text.partition(" ")[0]) for text in texts] == list(range(500))
    assert lines[-1] == "data: [DONE]"


async def reads_on(reader: socket.socket, size: int) -> None:
    """A sleeper that wakes up gets everything from the first event on, without a gap, also what was not written yet."""
    loop = asyncio.get_running_loop()
    got = bytearray()
    while len(got) < size:
        chunk = await asyncio.wait_for(loop.sock_recv(reader, 1 << 16), 60)
        assert chunk
        got += chunk
    events = [line for line in bytes(got).split(b"\n") if line.startswith(b'data: {"id"')][:-1]
    numbers = [int(json.loads(line[6:])["choices"][0]["text"].partition(" ")[0]) for line in events]
    assert numbers == list(range(len(numbers)))
    assert sum(map(len, events)) > 0.99 * size, "between the events is only what frames them"


async def test_a_reader_that_closes_its_own_half_has_left(service: Service) -> None:
    """It says that it sends nothing more, and reads on: its stream ends, its replica stops, others are answered."""
    async with endless() as replica, service.http() as http:
        await service.deploy("half", service.replica("serve-0", replica.url))
        loop = asyncio.get_running_loop()
        with await sleeper(service, "half-closed", "half") as reader:
            assert (await asyncio.wait_for(loop.sock_recv(reader, 1 << 16), 60)).startswith(b"HTTP/1.1 200 ")
            reader.shutdown(socket.SHUT_WR)
            end = b""
            async with asyncio.timeout(60):
                # What was on its way; then the stream ends, though the replica would go on for ever, and not as one
                # that is whole. Two pieces together, as the mark may lie across both.
                while piece := await loop.sock_recv(reader, 1 << 20):
                    end = end[-len(DONE) :] + piece
                    assert DONE not in end
        deadline = time.monotonic() + 60
        while "half-closed" not in replica.left:
            assert time.monotonic() < deadline, "the replica writes on for a reader that has gone"
            await asyncio.sleep(0.1)
        await answered(http, "whole", "half")
        while service.metric("hemostat_gateway_in_flight_requests", deployment="half"):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        assert service.metric("hemostat_gateway_aborts_total", deployment="half", reason="client") == 1
