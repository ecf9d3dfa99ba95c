"""Bodies that are small to send and costly to read are refused by a real process, which goes on answering."""

import http.client

from tests.integration.app.conftest import Server
from tests.support.bodies import HOSTILE, honest

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
