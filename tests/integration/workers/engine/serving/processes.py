"""Serving processes that tests start, and what is asked of them."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

from app.contracts.deployment import Deployment, DeploymentRequest, DeploymentState, Replica
from app.deployments.store import DeploymentStore
from app.models.registry import register
from app.settings import Settings
from tests.integration.conftest import RedisServer
from tests.support.patient import connect_patiently

PROMPT = "The quick brown fox"
PATIENCE_S = 600.0


class Service:
    """A home with Redis, a tiny model named `tiny`, and the serving processes that a test starts."""

    def __init__(self, redis: RedisServer, checkpoint: Path) -> None:
        self.settings: Settings = redis.settings
        self.redis = redis
        self.checkpoint = checkpoint
        self.settings.home.mkdir(parents=True, exist_ok=True)
        register(self.settings.models_file, "tiny", checkpoint)
        self.processes: list[subprocess.Popen[bytes]] = []
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def call(self, work: Callable[[DeploymentStore], Any]) -> Any:
        async def run() -> Any:
            client = connect_patiently(self.settings)
            try:
                return await work(DeploymentStore(client, self.settings))
            finally:
                await client.aclose()

        return asyncio.run(run())

    def create(self, name: str, **more: Any) -> Deployment:
        body = {"name": name, "model": {"model": "tiny"}, "reference": {"model": "tiny"}} | more
        request = DeploymentRequest.model_validate(body)
        return self.call(lambda store: store.create(request))  # type: ignore[no-any-return]

    def serve(self, name: str, **environment: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "workers.serve", "--deployment", name, "--replica", "0"],
            env=os.environ | {"HEMOSTAT_HOME": str(self.settings.home), "OMP_NUM_THREADS": "1"} | environment,
        )
        self.processes.append(process)
        return process

    def ready(self, name: str, **environment: str) -> tuple[subprocess.Popen[bytes], Replica]:
        """Started unless it runs: a start takes longer than what most tests do with it."""
        if name not in self._started or self._started[name].poll() is not None:
            self._started[name] = self.serve(name, **environment)
        return self._started[name], self.until(name, lambda one: one.state is DeploymentState.READY)

    def replica(self, name: str) -> Replica | None:
        running = self.call(lambda store: store.get(name)).running
        return running[0] if running else None

    def until(self, name: str, holds: Callable[[Replica], bool]) -> Replica:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found = self.replica(name)
            if found is not None and holds(found):
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.1)

    def until_gone(self, pids: set[int]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while any(alive(pid) for pid in pids):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def family(process: subprocess.Popen[bytes]) -> set[int]:
    return {process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))}


def engine_of(process: subprocess.Popen[bytes]) -> psutil.Process:
    """The process that schedules and runs the model."""
    children = psutil.Process(process.pid).children(recursive=True)
    (found,) = (child for child in children if " ".join(child.cmdline()).startswith("VLLM::EngineCore"))
    return found


def complete(replica: Replica, **more: Any) -> dict[str, Any]:
    body = {"model": "demo", "prompt": PROMPT, "max_tokens": 6, "temperature": 0.0, "ignore_eos": True} | more
    answer = httpx.post(f"{replica.url}/v1/completions", json=body, timeout=PATIENCE_S)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]
