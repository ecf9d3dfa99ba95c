"""The engine process' own HTTP port: its counters, its calibration versions, and which requests it had to end.

- GET /livez: 200 while the process lives. `{"status", "step_s"}`; the latter is the running step's time, or null.
- GET /metrics: counters of this process.
- GET /versions: `{"loaded": [...], "refused": {version: {"code", "detail"}}}`.
- GET /nonfinite/{request}: `{"nonfinite": bool, "reason": str}`.

If there is an internal secret, all but the first two ask for it, and answer 401 without.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from app.deployments.secret import admits
from workers.engine.serving.nonfinite import EndedRequests

REQUEST_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NONFINITE: Final = "/nonfinite/"
_TIMEOUT_S: Final = 10.0
_OPEN: Final = frozenset({"/livez", "/metrics"})


class StatusServer:
    """Serves from threads of its own until `close`. `port` is the one that it got. OSError where it gets none."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        registry: CollectorRegistry,
        versions: Callable[[], dict[str, object]],
        ended: EndedRequests,
        step_s: Callable[[], float | None],
        secret: str = "",
    ) -> None:
        class Handler(_Handler):
            routes = _Routes(registry, versions, ended, step_s, secret)

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, name="door", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Routes:
    def __init__(
        self,
        registry: CollectorRegistry,
        versions: Callable[[], dict[str, object]],
        ended: EndedRequests,
        step_s: Callable[[], float | None],
        secret: str,
    ) -> None:
        self._registry = registry
        self._versions = versions
        self._ended = ended
        self._step_s = step_s
        self._secret = secret

    def answer(self, path: str, authorization: str) -> tuple[HTTPStatus, str, bytes]:
        if self._secret and path not in _OPEN and not admits(self._secret, authorization):
            return HTTPStatus.UNAUTHORIZED, "application/json", b'{"error": "the internal secret is missing or wrong"}'
        if path == "/metrics":
            return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self._registry)
        body: dict[str, object] | None = None
        if path == "/livez":
            body = {"status": "ok", "step_s": self._step_s()}
        elif path == "/versions":
            body = self._versions()
        elif path.startswith(_NONFINITE) and REQUEST_ID.fullmatch(path.removeprefix(_NONFINITE)):
            why = self._ended.why(path.removeprefix(_NONFINITE))
            body = {"nonfinite": why is not None, "reason": why or ""}
        if body is None:
            return HTTPStatus.NOT_FOUND, "application/json", b'{"error": "not found"}'
        return HTTPStatus.OK, "application/json", json.dumps(body).encode()


class _Handler(BaseHTTPRequestHandler):
    routes: _Routes
    protocol_version = "HTTP/1.1"
    timeout = _TIMEOUT_S
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        status, kind, body = self.routes.answer(self.path.partition("?")[0], self.headers.get("Authorization", ""))
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """No line a request."""
