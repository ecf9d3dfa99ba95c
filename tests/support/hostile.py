"""What an attack costs a service that others use: seconds, memory, and how long a probe waits meanwhile."""

import contextlib
import csv
import http.client
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import psutil

from app.protocol import MAX_HEAD

FILE = Path(__file__).resolve().parents[1] / "bench" / "hostile.csv"
PROBE_EVERY_S = 0.05


@dataclass
class Watch:
    """Of the process `pid` that answers at 127.0.0.1:`port`, while the context lasts."""

    pid: int
    port: int
    seconds: float = 0.0
    grown_mb: float = 0.0  # at the highest
    kept_mb: float = 0.0  # a second after the end
    probe_s: float = 0.0  # longest wait for /livez
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._process = psutil.Process(self.pid)
        self._before = self._held()
        self._threads = [threading.Thread(target=target) for target in (self._probe, self._weigh)]
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._began
        time.sleep(1)
        self.kept_mb = self._held() - self._before
        self._over.set()
        for thread in self._threads:
            thread.join()

    def rows(self, case: str) -> list[tuple[str, str, str, float, str]]:
        """As `append` takes them."""
        return [
            ("hostile", case, "duration", round(self.seconds, 3), "s"),
            ("hostile", case, "memory_grown", round(self.grown_mb, 1), "MB"),
            ("hostile", case, "memory_kept", round(self.kept_mb, 1), "MB"),
            ("hostile", case, "livez_longest", round(self.probe_s, 3), "s"),
        ]

    def _held(self) -> float:
        return float(self._process.memory_info().rss) / 1e6

    def _weigh(self) -> None:
        while not self._over.wait(0.01):
            self.grown_mb = max(self.grown_mb, self._held() - self._before)

    def _probe(self) -> None:
        while not self._over.wait(PROBE_EVERY_S):
            began = time.monotonic()
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
            connection.request("GET", "/livez")
            assert connection.getresponse().status == 200
            connection.close()
            self.probe_s = max(self.probe_s, time.monotonic() - began)


def endless_head(url: str) -> None:
    """A head that is too long is refused."""
    address = urlsplit(url)
    with (
        socket.create_connection((address.hostname, address.port), timeout=60) as one,
        contextlib.suppress(ConnectionError),  # an answer may be lost in it
    ):
        one.sendall(b"GET / HTTP/1.1\r\nX-A: " + b"a" * 10 * MAX_HEAD)
        assert b" 431 " in one.recv(100)


def append(rows: list[tuple[str, str, str, float, str]]) -> None:
    """Adds `bench,case,metric,value,unit` to what was measured before."""
    new = not FILE.exists()
    with FILE.open("a", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if new:
            writer.writerow(("bench", "case", "metric", "value", "unit"))
        writer.writerows(rows)
