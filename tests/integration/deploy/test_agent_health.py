"""The agent's health check tells a deployment that nobody tends from one that an agent holds."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from app.contracts.deployment import DeploymentRequest
from app.deployments.report import AgentReport
from app.deployments.store import DeploymentStore
from app.jobs.connection import connect
from app.settings import Settings
from tests.integration.conftest import RedisServer

ROOT = Path(__file__).resolve().parents[3]
REQUEST = DeploymentRequest.model_validate({"name": "bot", "model": {"model": "a"}, "reference": {"model": "a"}})


def check(settings: Settings) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEMOSTAT_")}
    return subprocess.run(
        [sys.executable, ROOT / "deploy" / "agent_healthy.py"],
        capture_output=True,
        text=True,
        check=False,
        env=environment | {"HEMOSTAT_HOME": str(settings.home), "PYTHONPATH": str(ROOT)},
        timeout=120,
    )


def ask(settings: Settings, question: Callable[[DeploymentStore], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        client = connect(settings)
        try:
            return await question(DeploymentStore(client, settings))
        finally:
            await client.aclose()

    return asyncio.run(run())


def test_a_deployment_that_nobody_tends_is_no_health(redis_server: RedisServer) -> None:
    settings = redis_server.settings
    assert check(settings).returncode == 0
    made = ask(settings, lambda store: store.create(REQUEST))
    alone = check(settings)
    assert (alone.returncode, alone.stderr) == (1, "no agent runs bot\n")
    patient = settings.model_copy(update={"replica_lease_s": 600.0})  # the check takes its time
    ask(patient, lambda store: store.report(made.id, AgentReport(agent="one")))
    assert check(settings).returncode == 0
    redis_server.stop()
    away = check(settings)
    assert away.returncode == 1
    assert "Traceback" not in away.stderr
