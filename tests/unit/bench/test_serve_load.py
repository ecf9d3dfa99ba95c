"""What the bench of serving asks, and what it hands on to a shadow process."""

import json
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from tests.bench.serve_load import Load, Sampled, completions


@pytest.fixture
def asked() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that answers every completion with three tokens, its address, and what it was asked."""
    bodies: list[dict[str, Any]] = []

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            choice = {"token_ids": [7, 8, 9]} if bodies[-1]["return_token_ids"] else {}
            said = json.dumps({"usage": {"completion_tokens": 3}, "choices": [choice]}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", bodies
    server.shutdown()
    thread.join()
    server.server_close()


async def test_one_request_in_so_many_is_handed_on_with_its_answer(asked: tuple[str, list[dict[str, Any]]]) -> None:
    url, bodies = asked
    handed: list[tuple[str, Sequence[int], Sequence[int]]] = []

    async def kept(request: str, prompt: Sequence[int], output: Sequence[int]) -> None:
        handed.append((request, prompt, output))

    load = Load("bench", clients=2, tokens=3, extra={"hemostat_version": "identity"})
    sampled = Sampled(4, kept)
    for _ in range(2):  # over all runs together
        assert await completions(url, load, sampled=sampled, rounds=3) > 0
    chosen = [one for one in bodies if "hemostat_keep_hidden" in one["vllm_xargs"]]
    assert (len(bodies), len(chosen)) == (12, 3)
    assert sorted(handed) == sorted((one["vllm_xargs"]["hemostat_request"], one["prompt"], [7, 8, 9]) for one in chosen)
    assert [one["return_token_ids"] for one in bodies].count(True) == 3
