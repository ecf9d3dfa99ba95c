"""A replica's own part, without Redis and without vLLM: what its lease says while it drains."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import pytest

from app.contracts.deployment import Deployment, DeploymentState, Replica
from app.deployments.store import DeploymentStore
from app.settings import Settings
from tests.unit.workers.calibration.online.making import deployment
from workers import serve
from workers.engine.serving.child import ServerProcess
from workers.serve import Serving


class Store:
    """Keeps what the lease said."""

    def __init__(self) -> None:
        self.said: list[DeploymentState] = []

    async def get(self, name_or_id: str) -> Deployment:
        return deployment()

    async def renew(self, id_: str, replica: Replica) -> None:
        self.said.append(replica.state)


class Server:
    """One that answers one request until the lease was renewed twice while it drains, and its door, which is well."""

    url = "http://127.0.0.1:1"

    def __init__(self, store: Store) -> None:
        self.store = store

    async def until_ended(self) -> str:
        await asyncio.Event().wait()
        return ""

    async def unhealthy(self) -> bool:
        return False

    async def requests(self) -> int:
        return int(self.store.said.count(DeploymentState.DRAINING) < 3)

    async def get_json(self, url: str) -> dict[str, object]:
        return {"loaded": ["identity"], "refused": {}} if url.endswith("/versions") else {"since": None}


async def test_a_replica_that_drains_never_says_again_that_it_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "POLL_S", 0.01)
    monkeypatch.setattr(serve, "QUIET_POLL_S", 0.01)
    settings = Settings(home=tmp_path, drain_s=600.0, replica_renew_s=0.02)
    store = Store()
    serving = Serving(settings, cast(DeploymentStore, store), deployment(), 0)
    serving._folder.mkdir(parents=True)
    serving._door = "http://127.0.0.1:2"
    renewing = asyncio.create_task(serving._renew())
    working = asyncio.create_task(serving._serve(cast(ServerProcess, Server(store))))
    async with asyncio.timeout(60):
        while DeploymentState.READY not in store.said:  # noqa: ASYNC110 - the lease is renewed by another task
            await asyncio.sleep(0.01)
        serving.stop()
        assert await working == 0
    renewing.cancel()
    draining = store.said[store.said.index(DeploymentState.DRAINING) :]
    assert len(draining) > 2
    assert set(draining) == {DeploymentState.DRAINING}
