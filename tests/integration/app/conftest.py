"""A front end over a real Valkey: in this process for most tests, as a process of its own where it must be killed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from app.deployments.keys import DISK
from app.jobs.connection import connect
from app.jobs.store import JobStore
from app.main import create_app
from app.settings import Settings
from app.state import State
from tests.integration.app.deployments.asking import until
from tests.integration.conftest import RedisServer
from tests.support.ports import free_port


def compare(**changes: Any) -> dict[str, Any]:
    """A valid request for the model `tiny`."""
    return {
        "kind": "compare",
        "reference": {"model": "tiny"},
        "candidate": {"model": "tiny", "recipe": [{"type": "quantize.rtn", "bits": 4, "group_size": 64}]},
        "text": {"source": "inline", "documents": [{"id": "d1", "text": "The quick brown fox."}]},
        "window": 64,
    } | changes


class SharedServer(RedisServer):
    """One server for all tests of a module, emptied before each; the home is each test's own."""

    def renew(self, home: Path) -> None:
        self.start()
        with SyncRedis(unix_socket_path=str(self.socket)) as client:
            client.flushall()
        self.settings = Settings(home=home, redis_url=self.url)
        home.mkdir()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedServer]:
    made = SharedServer(tmp_path_factory.mktemp("valkey"))
    yield made
    made.stop()


@pytest.fixture
def redis_server(shared_server: SharedServer, tmp_path: Path) -> RedisServer:
    shared_server.renew(tmp_path / "home")
    return shared_server


@pytest.fixture
def settings(redis_server: RedisServer, tiny: Callable[..., Path]) -> Settings:
    """Settings of a service with one model and quick streams."""
    base = redis_server.settings
    base.models_file.write_text(f'[models.tiny]\npath = "{tiny("llama")}"\n')
    return base.model_copy(
        update={"sse_heartbeat_s": 0.3, "sse_poll_s": 0.2, "requests_per_minute": 100_000, "drain_s": 90.0}
    )


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[Redis]:
    redis = connect(redis_server.settings)
    yield redis
    await redis.aclose()


@pytest.fixture
async def store(client: Redis, redis_server: RedisServer) -> JobStore:
    return JobStore(client, redis_server.settings)


@dataclass
class Api:
    """The application in this process, its parts, and a client of it."""

    app: FastAPI
    state: State
    http: httpx.AsyncClient

    async def submit(self, **changes: Any) -> str:
        answer = await self.http.post("/v1/diagnosis/jobs", json=compare(**changes))
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Api]:
    app = create_app(settings)

    async def noted() -> bool:
        return bool(await app.state.hemostat.redis.exists(DISK))

    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http,
    ):
        await until(noted)  # once, at its start: tests compare all keys before and after what they do
        yield Api(app, app.state.hemostat, http)


class Server:
    """The API as a process, on a port of its own. It may be killed and started again on the same port."""

    def __init__(self, settings: Settings) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.settings = settings
        self.log = settings.home / "api.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **environment: str) -> None:
        names = ("home", "redis_url", "sse_heartbeat_s", "sse_poll_s", "requests_per_minute", "drain_s")
        given = {f"HEMOSTAT_{name.upper()}": str(getattr(self.settings, name)) for name in names}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "app.main"],
                env={**os.environ, **given, "HEMOSTAT_PORT": str(self.port), **environment},
                cwd=Path(__file__).resolve().parents[3],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(f"{self.url}/livez", timeout=2)
                return
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def end(self, number: signal.Signals, timeout: float = 60) -> int:
        """Sends a signal; the exit status."""
        assert self._process is not None
        self._process.send_signal(number)
        status = self._process.wait(timeout)
        self._process = None
        return status

    def stop(self) -> None:
        if self._process is not None:
            self.end(signal.SIGKILL)


@pytest.fixture
def server(settings: Settings) -> Iterator[Server]:
    made = Server(settings)
    yield made
    made.stop()
