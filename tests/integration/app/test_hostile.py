"""Bodies that are small to send and costly to read are refused by a real process, which goes on answering."""

import contextlib
import http.client
import socket
import threading

import pytest

from app.bodies import SMALL
from tests.integration.app.conftest import Server
from tests.support.bodies import HOSTILE, honest
from tests.support.keys import bearer, key_line, write_keys

LIMITS = {"/v1/diagnosis/jobs": 32 * 1024 * 1024, "/v1/deployments": 32 * 1024 * 1024, "/v1/chat/completions": 1 << 22}


def status(server: Server, path: str, body: bytes) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.request("POST" if body else "GET", path, body, {"content-type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def test_hostile_bodies_of_the_full_size_are_refused(server: Server) -> None:
    server.start()
    for path, size in LIMITS.items():
        found = {name: status(server, path, make(size)) for name, make in HOSTILE.items()}
        assert {name: code for name, code in found.items() if not 400 <= code < 500} == {}, path
        assert status(server, "/livez", b"") == 200


def test_a_job_of_31_mib_of_text_is_taken(server: Server) -> None:
    server.start()
    assert status(server, "/v1/diagnosis/jobs", honest(31 * 1024 * 1024)) == 202


@pytest.mark.parametrize("path", list(LIMITS)[::2])
def test_owners_who_dawdle_together_give_their_places_back(server: Server, path: str) -> None:
    """As many as there are places; each goes on sending, a little at a time."""
    names = [f"dawdler-{number}" for number in range(32)]
    keys = write_keys(
        server.settings.home / "keys", *(key_line(name, "diagnose,inference") for name in [*names, "ann"])
    )
    server.start(HEMOSTAT_API_KEYS_FILE=str(keys))
    over = threading.Event()
    dawdlers = [_dawdler(server, path, name) for name in names]
    sending = threading.Thread(target=_drip, args=(dawdlers, over))
    sending.start()
    try:
        headers = {"content-type": "application/json"} | bearer("ann")
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)) as connection:
            connection.request("POST", path, honest(2 * SMALL), headers)
            # It is read and judged: a job, and no chat.
            assert connection.getresponse().status == (202 if path.endswith("jobs") else 400)
        first = dawdlers[0].recv(1 << 16)
        assert first.startswith(b"HTTP/1.1 408 ")
        assert b"body_too_slow" in first
        assert b"connection: close" in first
    finally:
        over.set()
        sending.join()
        for one in dawdlers:
            one.close()


def _dawdler(server: Server, path: str, owner: str) -> socket.socket:
    made = socket.create_connection(("127.0.0.1", server.port), 60)
    head = {"host": "x", "content-type": "application/json", "content-length": str(1 << 20)} | bearer(owner)
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items()), "", ""]
    made.sendall("\r\n".join(lines).encode() + b" " * (SMALL + 1))
    return made


def _drip(dawdlers: list[socket.socket], over: threading.Event) -> None:
    while not over.wait(0.5):
        for one in dawdlers:
            with contextlib.suppress(OSError):
                one.send(b" ")
