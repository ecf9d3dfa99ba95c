"""Connections that send without end, slowly or not at all: each ends, and others are answered meanwhile."""

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from app import protocol
from app.protocol import MAX_HEAD, BoundedProtocol

LARGE = 8_000_000
HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\n"


async def _length(request: Request) -> Response:
    return PlainTextResponse(str(len(await request.body())))


async def _early(_request: Request) -> Response:
    return PlainTextResponse("no", status_code=401)


async def _large(_request: Request) -> Response:
    return PlainTextResponse(b"a" * LARGE)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[uvicorn.Server]:
    """A server that is less patient than ours."""
    monkeypatch.setattr(protocol, "HEAD_S", 1.0)
    monkeypatch.setattr(protocol, "BODY_S", 1.0)
    monkeypatch.setattr(protocol, "MAX_CONNECTIONS", 50)
    routes = [Route("/", _length, methods=["GET", "POST"]), Route("/early", _early, methods=["POST"])]
    app = Starlette(routes=[*routes, Route("/large", _large)])
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, http=BoundedProtocol, ws="none", log_config=None, lifespan="off")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server
    server.should_exit = True
    thread.join()


@pytest.fixture
def port(server: uvicorn.Server) -> int:
    return int(server.servers[0].sockets[0].getsockname()[1])


@pytest.fixture
def one(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as made:
        yield made


def answer(one: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    told = b""
    with contextlib.suppress(ConnectionError):
        while part := one.recv(65_536):
            told += part
    return told


def told(port: int, body: bytes | None = None) -> bytes:
    """What another client gets."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/", body)
    found = connection.getresponse().read()
    connection.close()
    return found


def send(one: socket.socket, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        one.sendall(data)


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"X-A: " + b"a" * 10 * MAX_HEAD,
        b"POST /" + b"a" * 10 * MAX_HEAD,
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-A: " + b"a" * 10 * MAX_HEAD,
    ],
    ids=["header", "path", "trailer"],
)
def test_what_never_ends_is_refused(one: socket.socket, port: int, head: bytes) -> None:
    send(one, head)
    assert answer(one)[9:12] in (b"431", b"400", b"")
    assert told(port) == b"0"


@pytest.mark.parametrize("before", [b"", b"Transfer-Encoding: chunked\r\n\r\n0\r\n"], ids=["headers", "trailers"])
def test_many_headers_are_refused(one: socket.socket, port: int, before: bytes) -> None:
    send(one, HEAD + before + b"".join(b"X-%d: a\r\n" % number for number in range(200)) + b"\r\n")
    assert answer(one).startswith(b"HTTP/1.1 400")
    assert told(port) == b"0"


def test_many_requests_at_once_are_refused(one: socket.socket, port: int) -> None:
    send(one, (HEAD + b"Content-Length: 0\r\n\r\n") * 1000)
    assert b"HTTP/1.1 400" in answer(one)
    assert told(port) == b"0"


@pytest.mark.parametrize(
    "start",
    [HEAD, HEAD + b"Content-Length: 99\r\n\r\n", HEAD.replace(b"/ ", b"/early ") + b"Content-Length: 99\r\n\r\n"],
    ids=["head", "body", "body that nobody reads"],
)
def test_one_byte_at_a_time_is_too_slow(one: socket.socket, port: int, start: bytes) -> None:
    send(one, start)
    one.settimeout(0.2)
    answers = b""
    for _ in range(200):
        send(one, b"a")
        try:
            part = one.recv(65_536)
        except TimeoutError:
            continue
        except ConnectionError:  # an answer may be lost in it
            break
        if not part:
            break
        answers += part
    else:
        pytest.fail("it may go on for ever")
    assert answers[9:12] in (b"408", b"401", b"")
    assert told(port) == b"0"


@pytest.mark.parametrize("sent", [b"", b"\r\n", HEAD + b"Content-Length: 0\r\n\r\n"], ids=["nothing", "a line", "one"])
def test_a_connection_that_says_nothing_more_is_closed(one: socket.socket, sent: bytes) -> None:
    send(one, sent)
    assert b"HTTP/1.1 408" not in answer(one) or sent == b"\r\n"


def test_a_large_body_may_take_its_time(one: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "SLOWEST", 1000)
    send(one, HEAD + b"Content-Length: 5000\r\n\r\n")
    for _ in range(5):
        time.sleep(0.6)
        one.sendall(b"a" * 1000)
    one.shutdown(socket.SHUT_WR)
    assert answer(one).endswith(b"5000")


def test_idle_connections_make_room_for_others(port: int) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        assert told(port, b"abc") == b"3"


def test_idle_connections_do_not_end_an_upload(port: int, one: socket.socket) -> None:
    one.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\nConnection: close\r\n\r\n")
    assert told(port, b"abc") == b"3"  # so its head has been read
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        one.sendall(b"a" * 5000)
        assert answer(one).endswith(b"5000")


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"], ids=["kept", "closed"])
def test_a_client_that_does_not_read_its_answer_makes_room_and_is_ended(
    server: uvicorn.Server, port: int, monkeypatch: pytest.MonkeyPatch, more: bytes
) -> None:
    monkeypatch.setattr(protocol, "UNREAD_S", 3.0)
    with contextlib.ExitStack() as stack:
        for _ in range(80):
            deaf = stack.enter_context(socket.socket())
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect(("127.0.0.1", port))
            deaf.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n" + more + b"\r\n")
        assert told(port, b"abc") == b"3"
        deadline = time.monotonic() + 60
        while server.server_state.connections:
            assert time.monotonic() < deadline, "a connection goes on for ever"
            time.sleep(0.05)


def test_a_slow_reader_gets_its_answer_beside_others(
    port: int, one: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "UNREAD_S", 3.0)
    one.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    got = 0
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            got += len(one.recv(40_000))
        assert got + len(answer(one)) > LARGE


def test_many_requests_pass_over_one_connection(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for size in (0, 10, 1_000_000, 3):
        connection.request("POST", "/", b"a" * size)
        assert connection.getresponse().read() == str(size).encode()
    connection.close()
