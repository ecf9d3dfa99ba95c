"""The API as a container runs it."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psutil
import pytest

from tests.integration.conftest import RedisServer
from tests.support.ports import free_port
from tests.support.worker import ROOT, environment, gone, halt, wait_for


@contextmanager
def watched(redis: RedisServer) -> Iterator[tuple[subprocess.Popen[bytes], psutil.Process]]:
    """It, answering, and the API below it."""
    (redis.settings.home / "models.toml").touch()
    port = free_port()
    settings = redis.settings.model_copy(
        update={"redis_url": redis.url, "port": port, "api_silence_s": 3.0, "start_s": 30.0}
    )
    process = subprocess.Popen([sys.executable, "-m", "app.watched"], cwd=ROOT, env=environment(settings))

    def answers() -> bool:
        assert process.poll() is None
        try:
            return httpx.get(f"http://127.0.0.1:{port}/livez", timeout=30).status_code == 200
        except httpx.TransportError:
            return False

    try:
        wait_for(answers, what="answer")
        (api,) = psutil.Process(process.pid).children()
        yield process, api
        wait_for(lambda: gone(api.pid), what="end of the API")
    finally:
        process.kill()
        process.wait()


def test_it_ends_when_the_api_hangs_so_that_its_container_is_started_again(redis_server: RedisServer) -> None:
    with watched(redis_server) as (process, api):
        halt(api.pid)
        assert process.wait(120) == 128 + signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_order_when_told_to(redis_server: RedisServer, number: signal.Signals) -> None:
    with watched(redis_server) as (process, _):
        process.send_signal(number)
        assert process.wait(60) == 128 + signal.SIGTERM


def test_it_ends_as_the_api_ends(redis_server: RedisServer) -> None:
    with watched(redis_server) as (process, api):
        api.kill()
        assert process.wait(120) == 128 + signal.SIGKILL


def test_the_api_goes_with_it(redis_server: RedisServer) -> None:
    with watched(redis_server) as (process, _):
        process.kill()
