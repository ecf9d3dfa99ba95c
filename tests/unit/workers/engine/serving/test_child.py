"""A server process that fails says why."""

import socket
import sys

import pytest

from tests.support.ports import free_port
from workers.engine.serving import child
from workers.engine.serving.child import HeldPort, ServerEndedError, ServerProcess


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("raise ValueError('no such head')", "status 1: ValueError: no such head"),
        ("import sys; sys.exit(3)", "status 3"),
        ("import os; os.kill(os.getpid(), 9)", "signal 9"),
    ],
)
async def test_the_reason_is_the_first_error_that_it_printed(code: str, told: str) -> None:
    server = await ServerProcess.start([sys.executable, "-c", code], {}, "http://127.0.0.1:9")
    with pytest.raises(ServerEndedError, match=told):
        await server.until_healthy("m")
    await server.end()


async def test_ending_ends_the_whole_group() -> None:
    """A grandchild that ignores SIGTERM, in the place of an engine process."""
    code = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import signal, time; signal.signal(15, signal.SIG_IGN); "
        'print("up", flush=True); time.sleep(600)\'])\n'
        "time.sleep(600)\n"
    )
    server = await ServerProcess.start([sys.executable, "-c", code], {}, "http://127.0.0.1:9")
    await server.end()  # returns only when nobody holds the pipe any more
    assert await server.until_ended() == "the server ended with signal 15"


def test_a_held_port_is_the_servers_and_nobody_elses() -> None:
    held = HeldPort("127.0.0.1")
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as vLLM's and every asyncio server
    late = socket.socket()
    late.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with server, late:
        with socket.socket() as plain, pytest.raises(OSError, match="in use"):
            plain.bind(("127.0.0.1", held.number))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", held.number), 5)
        server.bind(("127.0.0.1", held.number))
        server.listen()
        held.release()
        with socket.create_connection(("127.0.0.1", held.number), 5):
            server.accept()[0].close()
        with pytest.raises(OSError, match="in use"):
            late.bind(("127.0.0.1", held.number))


@pytest.mark.parametrize(("status", "told"), [(500, "got the status 500"), (None, "no answer to a first prompt of 8")])
async def test_a_server_that_does_not_answer_its_first_prompt_is_not_healthy(
    status: int | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "limit_s", lambda: 1)
    code = (
        "import http.server, sys, time\n"
        "class Answers(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.end_headers()\n"
        "    def do_POST(self):\n"
        f"        time.sleep({0 if status else 600})\n"
        f"        self.send_response({status or 200}); self.end_headers()\n"
        "http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Answers).serve_forever()\n"
    )
    port = free_port()
    server = await ServerProcess.start([sys.executable, "-c", code, str(port)], {}, f"http://127.0.0.1:{port}")
    with pytest.raises(ServerEndedError, match=told):
        await server.until_healthy("m")
    await server.end()
