"""A hub on loopback: data sets and models as folders of files, over the routes that its clients ask."""

import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

SHA = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """`files` by id and path. `asked`: path and authorization of each request. `stalled`: files that send nothing.
    `leads`: files that lead to another address."""

    url: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    stalled: set[str] = field(default_factory=set)
    leads: dict[str, str] = field(default_factory=dict)
    sent: int = 0

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            size = int(self.headers.get("content-length", 0))
            body = self.rfile.read(size)
            path = unquote(urlsplit(self.path).path)
            hub.asked.append((path, self.headers.get("authorization")))
            if found := re.fullmatch(r"/api/(?:datasets|models)/([^/]+/[^/]+)(?:/revision/[^/]+)?", path):
                return self._json(found[1], {"id": found[1], "sha": SHA, "siblings": self._siblings(found[1])})
            if found := re.fullmatch(r"/api/(?:datasets|models)/([^/]+/[^/]+)/tree/[^/]+/?(.*)", path):
                return self._json(found[1], self._tree(found[1], found[2]))
            if found := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)/paths-info/[^/]+", path):
                asked = self._paths(body)
                return self._json(found[1], [one for one in self._tree(found[1], "") if one["path"] in asked])
            if found := re.fullmatch(r"/(?:datasets/)?([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
                return self._file(found[1], found[2])
            return self._send(404, b"{}")

        def _paths(self, body: bytes) -> list[str]:
            try:
                paths = json.loads(body)["paths"]
            except ValueError:
                paths = [unquote(one.partition("=")[2]) for one in body.decode().split("&") if one.startswith("paths")]
            return [paths] if isinstance(paths, str) else paths

        def _siblings(self, name: str) -> list[dict[str, str]]:
            return [{"rfilename": path} for path in hub.files.get(name, {})]

        def _tree(self, name: str, below: str) -> list[dict[str, Any]]:
            return [
                {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for path, data in hub.files.get(name, {}).items()
                if not below or path.startswith(f"{below.rstrip('/')}/")
            ]

        def _json(self, name: str, value: Any) -> None:
            if name not in hub.files:
                return self._send(404, b"{}", {"x-error-code": "RepoNotFound"})
            return self._send(200, json.dumps(value).encode(), {"content-type": "application/json"})

        def _file(self, name: str, path: str) -> None:
            data = hub.files.get(name, {}).get(path)
            if data is None:
                return self._send(404, b"", {"x-error-code": "EntryNotFound", "x-repo-commit": SHA})
            if path in hub.leads:
                return self._send(302, b"", {"location": hub.leads[path]})
            if path in hub.stalled:
                while not ended.is_set():
                    time.sleep(0.05)
            headers = {"x-repo-commit": SHA, "etag": f'"{hashlib.sha1(data).hexdigest()}"', "accept-ranges": "bytes"}
            if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", "")):
                start, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
                headers["content-range"] = f"bytes {start}-{last}/{len(data)}"
                return self._send(206, data[start : last + 1], headers)
            return self._send(200, data, headers)

        def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                hub.sent += len(body)
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = _any

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            ended.set()
            server.shutdown()
            thread.join()
