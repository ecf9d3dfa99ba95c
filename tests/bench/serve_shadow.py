"""The shadow process of a deployment beside a server that already runs, which scores what the bench queues."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from app.contracts.deployment import Deployment, DeploymentRequest, DeploymentState, ShadowSample
from app.contracts.profile import Profile
from app.deployments.profiles import PROFILE_FILE
from app.deployments.store import DeploymentStore
from app.jobs.connection import connect
from app.jobs.embedded import EmbeddedValkey
from app.models.checkpoint import CheckpointInfo
from app.models.registry import register
from app.settings import Settings
from app.supervisor import environment_of
from tests.support.profiles import record
from workers.calibration.profiles import name_of, parameters_of, tensor_bytes
from workers.calibrators.kinds import Chain

START_S = 600.0


class ShadowBeside:
    """A ready shadow process, and its queue."""

    def __init__(self, store: DeploymentStore, deployment: Deployment, process: subprocess.Popen[bytes]) -> None:
        self._store = store
        self._id = deployment.id
        self._process = process
        self._queued = 0

    def stop(self) -> None:
        """It computes nothing until `go_on`."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """It goes on where it was."""
        os.killpg(self._process.pid, signal.SIGCONT)

    async def queue(self, request: str, prompt: Sequence[int], output: Sequence[int], version: str) -> None:
        """One answered request, whose states the server kept, as the gateway queues it."""
        sample = ShadowSample(
            id=request,
            prompt=tuple(prompt),
            output=tuple(output),
            version=version,
            temperature=0.0,
            hidden=f"hidden/{request}.bin",
            at=time.time(),
        )
        if not await self._store.push_sample(self._id, sample):
            raise RuntimeError("the shadow's queue is full")
        self._queued += 1

    async def until_idle(self) -> None:
        """Waits until all that was queued is scored, or skipped. Raises TimeoutError."""
        async with asyncio.timeout(START_S):
            while True:
                told = await self.counted()
                done = (told.get(f"hemostat_shadow_{name}_total", 0.0) for name in ("scored_requests", "skipped"))
                if sum(done) >= self._queued:
                    return
                await asyncio.sleep(0.2)  # its counters tell nobody when they change

    async def counted(self) -> dict[str, float]:
        """Its own counters, by name."""
        running = [one for one in (await self._store.get(self._id)).running if one.role == "shadow"]
        async with httpx.AsyncClient(trust_env=False) as client:
            text = (await client.get(running[0].metrics_urls[0])).raise_for_status().text
        found: dict[str, float] = {}
        for line in text.splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                found[name.partition("{")[0]] = found.get(name.partition("{")[0], 0.0) + float(value)
        return found


def keep_profile(calibrator: Chain, info: CheckpointInfo, folder: Path) -> None:
    """Puts the record beside a calibrator's files, for which the shadow looks: of this model, fitted to nothing."""
    fitted = record(hidden_size=info.hidden_size, vocabulary=info.vocabulary)
    profile = Profile(
        **dict(fitted),
        version=folder.name,
        calibrator=name_of(calibrator),
        parameters=parameters_of(calibrator),
        bytes=tensor_bytes(calibrator),
        created_at=time.time(),
    )
    (folder / PROFILE_FILE).write_text(profile.model_dump_json(), encoding="utf-8")


@asynccontextmanager
async def shadow_beside(
    home: Path, name: str, reference: tuple[str, Path], recipe: list[dict[str, Any]], hidden: Path
) -> AsyncIterator[ShadowBeside]:
    """A shadow process of `recipe` over `reference`, ready, for as long as the block runs. `hidden`: where the server
    keeps the states of sampled requests.
    """
    settings = Settings(home=home)
    valkey = EmbeddedValkey(settings)
    valkey.start()
    client = connect(settings)
    process: subprocess.Popen[bytes] | None = None
    try:
        register(settings.models_file, *reference)
        store = DeploymentStore(client, settings)
        model = {"model": reference[0]}
        body = {"name": name, "model": model | {"recipe": recipe}, "reference": model, "shadow_rate": 0.01}
        deployment = await store.create(DeploymentRequest.model_validate(body))
        process = await asyncio.to_thread(_start, settings, deployment.id, hidden)
        await _until_ready(store, deployment.id, process)
        yield ShadowBeside(store, deployment, process)
    finally:
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGCONT)
            process.terminate()
            await asyncio.to_thread(process.wait)
        await client.aclose()
        valkey.stop()


def _start(settings: Settings, id_: str, hidden: Path) -> subprocess.Popen[bytes]:
    folder = settings.home / "deployments" / id_
    folder.mkdir(parents=True)
    hidden.mkdir(parents=True, exist_ok=True)
    (folder / "hidden").symlink_to(hidden)
    command = [sys.executable, "-m", "workers.shadow", "--deployment", id_]
    return subprocess.Popen(
        command, env=environment_of(settings), stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True
    )


async def _until_ready(store: DeploymentStore, id_: str, process: subprocess.Popen[bytes]) -> None:
    due = time.monotonic() + START_S
    while True:
        running = [one for one in (await store.get(id_)).running if one.role == "shadow"]
        if any(one.state is DeploymentState.READY for one in running):
            return
        if process.poll() is not None or time.monotonic() > due:
            raise RuntimeError("the shadow process does not start; what it says stands above")
        await asyncio.sleep(0.2)
