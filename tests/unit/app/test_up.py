"""What `hemostat up` says of a service that is up and not ready."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from app.up import _reason


@contextmanager
def answering(body):
    class Unready(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(503)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Unready)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/readyz"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            {"detail": "Not ready. models: there is no models.toml", "hint": "`hemostat models import-gguf --demo`"},
            "Not ready. models: there is no models.toml. What to do: `hemostat models import-gguf --demo`.",
        ),
        ({"detail": "Not ready.", "hint": "look after redis"}, "Not ready. What to do: look after redis."),
        ({"detail": "Not ready."}, "Not ready."),
        ({}, "the service is not ready"),
    ],
)
def test_why_a_service_is_not_ready_is_said_with_what_to_do(body, said):
    with answering(body) as url:
        assert _reason(url) == said
