"""The service's front end before a server that already runs: a record in Redis, and a lease that is renewed."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx

from app.contracts.deployment import DeploymentRequest, DeploymentState, Replica
from app.deployments.store import DeploymentStore
from app.jobs.connection import connect
from app.jobs.embedded import EmbeddedValkey
from app.models.registry import register
from app.settings import Settings
from tests.support.ports import free_port
from workers.process.tasks import cancel


@asynccontextmanager
async def through_gateway(home: Path, name: str, model: Path, server: str, door: str) -> AsyncIterator[str]:
    """The gateway's URL, for as long as the block runs."""
    settings = Settings(home=home)
    valkey = EmbeddedValkey(settings)
    valkey.start()
    client = connect(settings)
    process: asyncio.subprocess.Process | None = None
    renewing: asyncio.Task[None] | None = None
    try:
        register(settings.models_file, name, model)
        store = DeploymentStore(client, settings)
        body = {"name": name, "model": {"model": name}, "reference": {"model": name}, "shadow_rate": 0}
        made = await store.create(DeploymentRequest.model_validate(body))
        replica = Replica(id="bench", state=DeploymentState.READY, url=server, engine_url=door, pid=os.getpid())
        await store.register(made.id, replica)

        async def renew() -> None:
            while True:
                await asyncio.sleep(settings.replica_renew_s)
                await store.renew(made.id, replica)

        renewing = asyncio.create_task(renew())
        port = free_port()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "app.main",
            env=os.environ
            | {
                "HEMOSTAT_HOME": str(home),
                "HEMOSTAT_PORT": str(port),
                "HEMOSTAT_REQUESTS_PER_MINUTE": "1000000",
            },
        )
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(trust_env=False) as http:
            while True:
                with suppress(httpx.HTTPError):
                    if (await http.get(f"{url}/livez")).status_code == httpx.codes.OK:
                        break
                if process.returncode is not None:
                    raise RuntimeError("the front end does not start")
                await asyncio.sleep(0.1)
        yield url
    finally:
        if renewing is not None:
            await cancel(renewing)
        if process is not None and process.returncode is None:
            process.terminate()
            await process.wait()
        await client.aclose()
        valkey.stop()
