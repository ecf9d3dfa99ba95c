"""A service that only writes down what the command line asks it."""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from app.cli import submitting
from tests.support.commands import run


@dataclass
class Recorder:
    """`asked`: method and target of each request but for the question whether it lives. `answers`: to the first of
    them, in turn; `answer`: to the others. `bodies`: what came with each of `asked`."""

    url: str = ""
    answer: Any = None
    answers: list[Any] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)


@pytest.fixture
def recorder():
    made = Recorder()

    class Handler(BaseHTTPRequestHandler):
        def _any(self):
            sent = self.rfile.read(int(self.headers.get("content-length", 0)))
            if self.path != "/livez":
                made.bodies.append(sent)
                made.asked.append((self.command, self.path))
            answer = made.answers.pop(0) if made.answers and self.path != "/livez" else made.answer
            body = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(200 if body else 204)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_DELETE = _any

        def log_message(self, *_):
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield made
        server.shutdown()
        thread.join()


@pytest.fixture
def sent(monkeypatch):
    """`sent("compare a b")`: the request that the command would send."""
    found = []
    monkeypatch.setattr(submitting, "measure", lambda request, *_, **__: found.append(request))

    def of(line, *more):
        done = run(line, *more, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return found[-1]

    return of
