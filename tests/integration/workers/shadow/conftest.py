"""A real shadow process over a real Valkey and a tiny model whose candidate is RTN-3; samples come from the tests."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from redis.exceptions import RedisError

from app.contracts.deployment import Deployment, DeploymentEvent, DeploymentRequest, DeploymentState, ShadowSample
from app.deployments.store import DeploymentStore
from app.settings import Settings
from tests.integration.conftest import RedisServer
from tests.support.patient import connect_patiently
from tests.support.tiny import make_checkpoint
from tests.support.worker import ROOT, environment, wait_for
from workers.engine.environment import child_environment

T = TypeVar("T")
RECIPE = [{"type": "quantize.rtn", "bits": 3, "group_size": 32}]
PATIENCE_S = 600


def run(settings: Settings, act: Callable[[DeploymentStore], Awaitable[T]]) -> T:
    """One call of the store, in an event loop of its own."""

    async def go() -> T:
        client = connect_patiently(settings)
        try:
            return await act(DeploymentStore(client, settings))
        finally:
            await client.aclose()

    for attempt in range(4):
        try:
            return asyncio.run(go())
        except RedisError:  # a machine that is busy elsewhere answers late
            if attempt == 3:
                raise
    raise AssertionError


class Shadow:
    """`python -m workers.shadow` for one deployment, logging to a file."""

    def __init__(self, settings: Settings, name: str = "demo") -> None:
        self.settings = settings
        self.log = settings.home / "shadow.log"
        self.deployment: Deployment = run(settings, lambda store: store.get(name))
        self.folder = settings.home / "deployments" / self.deployment.id
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "workers.shadow", "--deployment", self.deployment.id],
                cwd=ROOT,
                env=child_environment(environment(self.settings)),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def ready(self) -> None:
        def state() -> bool:
            assert self.process is not None and self.process.poll() is None, self.text()
            found = [one for one in self.get().running if one.role == "shadow"]
            return any(one.pid == self.process.pid and one.state is DeploymentState.READY for one in found)

        wait_for(state, what="ready shadow process", timeout_s=PATIENCE_S)

    def get(self) -> Deployment:
        return run(self.settings, lambda store: store.get(self.deployment.id))

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def push(self, samples: Sequence[ShadowSample]) -> None:
        async def act(store: DeploymentStore) -> None:
            for sample in samples:
                assert await store.push_sample(self.deployment.id, sample)

        run(self.settings, act)

    def events(self) -> list[DeploymentEvent]:
        return [event for _, event in run(self.settings, lambda store: store.events(self.deployment.id))]

    def metric(self, name: str, **labels: str) -> float | None:
        found = re.findall(r"metrics on (\S+)", self.text())
        with urllib.request.urlopen(found[-1], timeout=60) as answer:
            text = answer.read().decode()
        for line in text.splitlines():
            if line.startswith(f"{name}{{") and all(f'{key}="{value}"' in line for key, value in labels.items()):
                return float(line.rpartition(" ")[2])
        return None

    def until(self, condition: Callable[[Deployment], Any], *, what: str) -> Deployment:
        def look() -> Deployment | None:
            assert self.process is None or self.process.poll() is None, self.text()
            found = self.get()
            return found if condition(found) else None

        found = wait_for(look, what=what, timeout_s=PATIENCE_S)
        assert found is not None
        return found

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def terminate(self) -> int:
        self.process.terminate()
        code = self.process.wait(90)
        self.process = None
        return code


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def redis(home: Path) -> Iterator[RedisServer]:
    server = RedisServer(home)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def settings(home: Path, redis: RedisServer) -> Settings:
    for alias in ("tiny", "served"):  # the same weights: what is served gets its recipe, and other weights later
        make_checkpoint(home / alias, "llama", seed=3)
    (home / "models.toml").write_text('[models.tiny]\npath = "tiny"\n[models.served]\npath = "served"\n', "utf-8")
    return redis.settings.model_copy(
        update={
            "engine_batch_tokens": 512,
            "engine_kv_cache_bytes": 16 * 1024 * 1024,
            "share_shadow": 0.5,
            "shadow_nice": 1,  # still behind what serves; by default its start would wait for the other tests
            "shadow_expiry_s": 600.0,
            "shadow_refit_after_tokens": 10**9,
            "shadow_refit_fresh": 20,
            "shadow_refit_tokens": 3000,
            "shadow_reservoir_tokens": 800,
        }
    )


@pytest.fixture(scope="module")
def shadow(settings: Settings) -> Iterator[Shadow]:
    """The process of a deployment without a drift threshold, ready."""
    request = DeploymentRequest.model_validate(
        {"name": "demo", "model": {"model": "served", "recipe": RECIPE}, "reference": {"model": "tiny"}}
    )
    run(settings, lambda store: store.create(request))
    made = Shadow(settings)
    made.start()
    made.ready()
    yield made
    if made.process is not None:
        made.kill()


def hidden_file(folder: Path, name: str, states_TD: torch.Tensor) -> str:
    """What the serving process leaves of a sampled request."""
    (folder / "hidden").mkdir(exist_ok=True)
    content = states_TD.bfloat16().contiguous().view(torch.uint8).numpy().tobytes()
    (folder / "hidden" / name).write_bytes(content)
    return f"hidden/{name}"
