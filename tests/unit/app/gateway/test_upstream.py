"""What is sent to a replica: its own secret, and nothing of another one's; and what becomes of an answer that is none.
Real servers."""

import asyncio
import hashlib
import http.server
import json
import random
import threading
from contextlib import asynccontextmanager

import pytest

from app.contracts.deployment import Replica
from app.deployments.secret import admits
from app.gateway.upstream import PART_BYTES, DoorSilentError, ReplicaLostError, ReplicaSilentError, Upstream, read
from app.settings import Settings

SECRET = "the secret of this replica"


@pytest.fixture
def url():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer({"data": [{"id": "served"}], "nonfinite": True, "reason": "logits were not finite"})

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.answer({"tokens": [1]})

        def answer(self, value):
            body = json.dumps(value).encode()
            self.send_response(200 if admits(SECRET, self.headers.get("authorization", "")) else 401)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
async def upstream():
    made = Upstream(Settings())
    yield made
    await made.close()


async def test_every_question_carries_the_replicas_secret(upstream, url):
    replica = Replica(id="serve-0", url=url, engine_url=url, secret=SECRET)
    assert await upstream.served_name(replica) == "served"
    assert await upstream.call(replica, "/tokenize", {"prompt": "a"}) == (200, b'{"tokens": [1]}')
    assert await upstream.why_ended(replica, "one") == "logits were not finite"


@pytest.mark.parametrize("secret", ["", "of the process that had this port before"])
async def test_a_replica_that_does_not_know_us_counts_as_lost(upstream, url, secret):
    """So another one is asked, and the list of replicas is read again: it may have been started anew."""
    replica = Replica(id="serve-0", url=url, engine_url=url, secret=secret)
    with pytest.raises(ReplicaLostError):
        await upstream.served_name(replica)
    with pytest.raises(ReplicaLostError, match="another secret"):
        await upstream.call(replica, "/tokenize", {"prompt": "a"})
    with pytest.raises(DoorSilentError):
        await upstream.why_ended(replica, "one")


@asynccontextmanager
async def peer(answer):
    """A server on a socket that says what it likes."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def head(reader):
    """A request's head, and its body by the length that it states."""
    found = await reader.readuntil(b"\r\n\r\n")
    size = int(found.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    return found.lower(), await reader.readexactly(size)


@pytest.mark.parametrize("size", [10, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES + 7])
async def test_a_body_of_any_size_arrives_whole_under_its_length(upstream, size):
    """Beyond a part it is sent in parts, which chunked transfer would do as well, and not every server reads that."""
    sent = random.Random(size).randbytes(size)
    heads: list[bytes] = []

    async def answer(reader, writer):
        said, body = await head(reader)
        heads.append(said)
        digest = hashlib.sha256(body).hexdigest().encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(digest), digest))
        await writer.drain()
        writer.close()

    async with (
        asyncio.timeout(20),  # a body that is cut off would be waited for
        peer(answer) as url,
        upstream.post(Replica(id="a", url=url), "/", sent, stream=False) as found,
    ):
        assert await read(found) == hashlib.sha256(sent).hexdigest().encode()
    assert b"transfer-encoding" not in heads[0]


async def test_no_cookie_of_a_replica_is_sent_back(upstream):
    heads: list[bytes] = []

    async def answer(reader, writer):
        for _ in range(2):
            heads.append((await head(reader))[0])
            writer.write(b"HTTP/1.1 200 OK\r\nset-cookie: a=b; Path=/\r\ncontent-length: 2\r\n\r\n{}")
            await writer.drain()
        writer.close()

    async with peer(answer) as url:
        for _ in range(2):
            assert await upstream.call(Replica(id="a", url=url), "/tokenize", {}) == (200, b"{}")
    assert len(heads) == 2  # on one connection
    assert all(b"cookie" not in said for said in heads)


BROKEN = {
    "no HTTP": b"what is this?\r\n\r\n",
    "a status that is none": b"HTTP/1.1 many OK\r\n\r\n",
    "nothing": b"",
    "half a head": b"HTTP/1.1 200 OK\r\ncontent-le",
    "half a body": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
    "half a stream": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "a chunk that is none": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nmany\r\nhello\r\n",
}


@pytest.mark.parametrize("said", BROKEN.values(), ids=BROKEN.keys())
async def test_an_answer_that_is_none_counts_as_a_lost_replica(upstream, said):
    async def answer(reader, writer):
        await head(reader)
        writer.write(said)
        await writer.drain()
        writer.close()

    async with peer(answer) as url:
        with pytest.raises(ReplicaLostError):
            await upstream.call(Replica(id="a", url=url), "/tokenize", {})


async def test_a_door_that_speaks_no_http_is_one_that_does_not_tell(upstream):
    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(BROKEN["no HTTP"])
        await writer.drain()
        writer.close()

    async with peer(answer) as url:
        replica = Replica(id="a", url=url, engine_url=url)
        with pytest.raises(DoorSilentError):
            await upstream.why_ended(replica, "one")
        with pytest.raises(ReplicaLostError):
            await upstream.check_alive(replica)
        with pytest.raises(ReplicaLostError):
            await upstream.served_name(replica)


@pytest.mark.parametrize("size", [10, 64 * 1024 * 1024], ids=["that says nothing", "that does not read"])
async def test_a_replica_is_silent_after_its_time(monkeypatch, size):
    """The second one never takes the request, so no time of reading begins: what is written has a limit, too."""
    monkeypatch.setattr("app.gateway.upstream.WRITE_TIMEOUT_S", 0.2)
    upstream = Upstream(Settings(gateway_answer_timeout_s=0.3))
    left = asyncio.Event()

    async def answer(reader, writer):
        if size == 10:
            await head(reader)
        await left.wait()
        writer.close()

    try:
        async with peer(answer) as url:
            with pytest.raises(ReplicaSilentError):
                async with asyncio.timeout(20):
                    async with upstream.post(Replica(id="a", url=url), "/", bytes(size), stream=False):
                        pass
            left.set()
    finally:
        await upstream.close()


async def test_an_answer_that_is_left_in_the_middle_closes_its_connection(upstream):
    """Which is how a replica learns that nobody reads."""
    ended = asyncio.Event()

    async def answer(reader, writer):
        await head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await writer.drain()
        assert await reader.read() == b""
        ended.set()
        writer.close()

    async with peer(answer) as url:
        async with upstream.post(Replica(id="a", url=url), "/", b"{}", stream=True) as found:
            assert await anext(found.aiter_raw()) == b"hello"
        async with asyncio.timeout(10):
            await ended.wait()
