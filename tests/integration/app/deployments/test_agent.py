"""The agent as a process of its own, over a real Valkey, with programs of `tests.support.serving`."""

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable

import psutil
import pytest
from redis.asyncio import Redis

from app.contracts.deployment import Deployment, DeploymentPatch, DeploymentState
from app.contracts.errors import HemostatError
from app.deployments.store import DeploymentStore
from app.settings import Settings
from tests.integration.app.deployments.asking import until
from tests.integration.app.deployments.conftest import request
from tests.integration.conftest import RedisServer
from tests.support.worker import ROOT, environment

MODULES = ["--serve-module", "tests.support.serving", "--shadow-module", "tests.support.serving"]


@pytest.fixture
def agent_settings(redis_server: RedisServer) -> Settings:
    return redis_server.settings.model_copy(
        update={"replica_lease_s": 15.0, "replica_renew_s": 0.2, "share_serving": 0.1, "drain_s": 0.1}
    )


@pytest.fixture
def store(client: Redis, agent_settings: Settings) -> DeploymentStore:
    return DeploymentStore(client, agent_settings)


class Agent:
    """`python -m app.deployments.agent`, and what it starts."""

    def __init__(self, settings: Settings, *arguments: str) -> None:
        self.log = settings.home / f"agent-{len(list(settings.home.glob('agent-*')))}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "app.deployments.agent", *MODULES, *arguments],
                cwd=ROOT,
                env=environment(settings),
                stdout=log,
                stderr=log,
            )

    def text(self) -> str:
        return self.log.read_text()

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    async def end(self, *signals: signal.Signals) -> int:
        for number in signals or (signal.SIGINT,):
            self.process.send_signal(number)
            await asyncio.sleep(0.3)  # else they are one
        return await asyncio.to_thread(self.process.wait, 90)


Start = Callable[..., Agent]


@pytest.fixture
async def start(agent_settings: Settings) -> AsyncIterator[Start]:
    started: list[Agent] = []

    def begin(*arguments: str) -> Agent:
        started.append(Agent(agent_settings, *arguments))
        return started[-1]

    yield begin
    for agent in started:
        if agent.process.poll() is None:
            agent.process.terminate()
            await asyncio.to_thread(agent.process.wait, 90)


async def becomes(store: DeploymentStore, deployment: Deployment, state: DeploymentState) -> Deployment:
    async def is_so() -> bool:
        return (await store.get(deployment.id)).state is state

    await until(is_so)
    return await store.get(deployment.id)


async def gone(processes: list[psutil.Process]) -> None:
    async def all_gone() -> bool:
        return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)

    await until(all_gone)


async def test_it_starts_scales_drains_and_leaves_nothing(store: DeploymentStore, start: Start) -> None:
    made = await store.create(request(replicas=2))
    agent = start()
    ready = await becomes(store, made, DeploymentState.READY)
    await until(lambda: running(store, made, 3))
    assert {one.id for one in await store.replicas(made.id)} == {"serve-0", "serve-1", "shadow"}
    assert {one.pid for one in ready.running} <= {process.pid for process in agent.family()}

    await store.patch(made.id, DeploymentPatch(replicas=1))
    await until(lambda: running(store, made, 2))
    await becomes(store, made, DeploymentState.READY)
    await store.patch(made.id, DeploymentPatch(replicas=3))
    await until(lambda: running(store, made, 4))

    family = agent.family()
    await store.delete(made.id)

    async def forgotten() -> bool:
        return await store.list() == []

    async def removed() -> bool:
        return not (store.settings.home / "deployments" / made.id).exists()

    await until(forgotten)
    await gone(family)
    await until(removed)
    assert await agent.end() == 0


async def running(store: DeploymentStore, deployment: Deployment, count: int) -> bool:
    return len(await store.replicas(deployment.id)) == count


async def test_ctrl_c_drains_everything_and_another_agent_goes_on(store: DeploymentStore, start: Start) -> None:
    made = await store.create(request())
    first = start("--no-shadow")
    await becomes(store, made, DeploymentState.READY)
    family = first.family()
    assert len(family) == 1, "no shadow was asked for"
    second = start()

    async def refused() -> bool:
        return "is run by another agent" in second.text()

    await until(refused)
    assert second.family() == []
    assert await first.end(signal.SIGINT) == 0
    await gone(family)
    await until(lambda: running(store, made, 2))
    assert (await becomes(store, made, DeploymentState.READY)).reason == ""


async def test_a_process_that_dies_is_started_again(store: DeploymentStore, start: Start) -> None:
    made = await store.create(request())
    start("--no-shadow")
    before = (await becomes(store, made, DeploymentState.READY)).running[0].pid
    os.kill(before, signal.SIGKILL)

    async def again() -> bool:
        running = await store.replicas(made.id)
        return bool(running) and running[0].pid != before

    await until(again)
    await becomes(store, made, DeploymentState.READY)


async def test_what_keeps_ending_is_failed_with_the_end_of_its_log(store: DeploymentStore, start: Start) -> None:
    made = await store.create(request(metadata={"serving": "crash"}))
    other = await store.create(request(name="other"))
    start("--no-shadow")
    failed = await becomes(store, made, DeploymentState.FAILED)
    assert "tiny-rtn4/serve-0 ended" in failed.reason
    # The end of its log: a line of each of the three times, and of those since.
    assert re.search(r"status 3: the weights are not there(\nthe weights are not there){2,4}$", failed.reason)
    await becomes(store, other, DeploymentState.READY)


async def test_a_deaf_process_is_killed(store: DeploymentStore, start: Start) -> None:
    made = await store.create(request(metadata={"serving": "deaf"}))
    agent = start("--no-shadow")
    await becomes(store, made, DeploymentState.READY)
    family = agent.family()
    assert await agent.end(signal.SIGINT, signal.SIGTERM, signal.SIGINT) == 0
    await gone(family)


async def test_when_the_agent_is_killed_its_processes_end(store: DeploymentStore, start: Start) -> None:
    made = await store.create(request())
    agent = start()
    await becomes(store, made, DeploymentState.READY)
    family = agent.family()
    agent.process.kill()
    await asyncio.to_thread(agent.process.wait, 60)
    await gone(family)


async def test_while_redis_is_away_it_goes_on(redis_server: RedisServer, store: DeploymentStore, start: Start) -> None:
    made = await store.create(request())
    agent = start()
    await until(lambda: running(store, made, 2))
    family = agent.family()
    redis_server.kill()

    async def said(text: str) -> bool:
        return text in agent.text()

    await until(lambda: said("Redis is away"))
    assert {process.pid for process in agent.family()} == {process.pid for process in family}
    redis_server.start()
    await until(lambda: said("Redis answers again"))
    await until(lambda: running(store, made, 2))
    await becomes(store, made, DeploymentState.READY)
    assert {process.pid for process in agent.family()} == {process.pid for process in family}


async def test_what_does_not_fit_is_not_started(store: DeploymentStore, agent_settings: Settings, start: Start) -> None:
    first = await store.create(request(replicas=6))
    second = await store.create(request(name="second"))
    start("--no-shadow")
    await becomes(store, first, DeploymentState.READY)
    refused = await becomes(store, second, DeploymentState.FAILED)
    # 0.2 for diagnosis and 6 × 0.1 + 0.1 for the first leave 0.1, which its replica would take.
    assert "No device has room for shadow of second" in refused.reason
    assert "cpu 0.00" in refused.reason
    tight = agent_settings.model_copy(update={"share_serving": 0.9})
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "app.deployments.agent"],
        cwd=ROOT,
        env=environment(tight),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "takes a share of 0.9" in done.stderr
    assert "cpu 0.80" in done.stderr
    assert "HEMOSTAT_SHARE_SERVING" in done.stderr


async def test_a_name_that_is_not_there_is_said_at_once(store: DeploymentStore, start: Start) -> None:
    await store.create(request())
    agent = start("tiny-rtn5")
    assert await asyncio.to_thread(agent.process.wait, 90) == 2
    assert "tiny-rtn4" in agent.text()
    with pytest.raises(HemostatError):
        await store.get("tiny-rtn5")
