"""A verify process for tests."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from app.contracts.deployment import Replica
from app.deployments.store import DeploymentStore
from app.settings import Settings
from tests.support.patient import connect_patiently

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 600.0
# Few draws and a large share: tiny models on a machine that other tests use too.
VARIABLES = {
    "HEMOSTAT_VERIFY_DRAWS": "500",
    "HEMOSTAT_SHARE_VERIFY": "0.9",
    "HEMOSTAT_REPLICA_RENEW_S": "0.2",
    "HEMOSTAT_ENGINE_KV_CACHE_BYTES": str(16 * 1024 * 1024),
    "HEMOSTAT_ENGINE_BATCH_TOKENS": "512",
    "OMP_NUM_THREADS": "1",
}


def start(settings: Settings, deployment: str, log: Path, **variables: str) -> subprocess.Popen[bytes]:
    """The process, in a session of its own, logging to a file."""
    own = {"HEMOSTAT_HOME": str(settings.home)}
    if settings.redis_url is not None:
        own["HEMOSTAT_REDIS_URL"] = settings.redis_url
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "workers.verify", "--deployment", deployment],
            env={**os.environ, **VARIABLES, **own, **variables},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=ROOT,
            start_new_session=True,
        )


async def call(settings: Settings, work: Callable[[DeploymentStore], Awaitable[Any]]) -> Any:
    """What `work` answers, with a store of its own."""
    client = connect_patiently(settings)
    try:
        return await work(DeploymentStore(client, settings))
    finally:
        await client.aclose()


async def until(
    settings: Settings,
    deployment: str,
    holds: Callable[[Replica], bool],
    process: subprocess.Popen[bytes],
    log: Path,
) -> Replica:
    """The verify process' own record, once `holds` is true of it."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = await call(settings, lambda store: store.get(deployment))
        for replica in found.running:
            if replica.role == "verify" and holds(replica):
                checked: Replica = replica
                return checked
        assert process.poll() is None, _end_of(log)
        assert time.monotonic() < deadline, (found.running, _end_of(log))
        await asyncio.sleep(0.05)


def _end_of(log: Path) -> str:
    return log.read_text()[-4000:]


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills what still runs."""
    if process.poll() is None:
        process.kill()
    process.wait(30)
