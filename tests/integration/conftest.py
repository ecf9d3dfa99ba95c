"""A real Valkey on a unix socket, with its append-only file, for every test that needs Redis."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.jobs.embedded import EmbeddedValkey
from app.settings import Settings


class RedisServer:
    """An embedded Valkey below its own home. `settings` point at it; what it held is there again after `start`."""

    def __init__(self, home: Path) -> None:
        self.settings = Settings(home=home)
        self._valkey = EmbeddedValkey(self.settings)

    @property
    def socket(self) -> Path:
        return self._valkey.socket

    @property
    def url(self) -> str:
        return self._valkey.url

    @property
    def pid(self) -> int | None:
        return self._valkey.pid

    def start(self) -> None:
        self._valkey.start()

    def stop(self) -> None:
        """SIGTERM: the server saves and goes."""
        self._valkey.stop()

    def kill(self) -> None:
        """kill -9: the server saves nothing more."""
        assert self._valkey.pid is not None
        os.kill(self._valkey.pid, signal.SIGKILL)
        self._valkey.stop()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A running, empty server."""
    server = RedisServer(tmp_path / "home")
    server.start()
    yield server
    server.stop()
