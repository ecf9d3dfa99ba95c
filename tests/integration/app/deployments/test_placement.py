"""Two agents with devices that are not there, over a real Valkey: who starts what, and on which device."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from redis.asyncio import Redis

from app.contracts.deployment import Deployment, DeploymentPatch, DeploymentState
from app.contracts.errors import ErrorCode, HemostatError
from app.deployments.agent import Agent
from app.deployments.report import Device, HostReport
from app.deployments.store import DeploymentStore
from app.settings import Settings
from app.supervisor import Interruptions
from tests.integration.app.deployments.asking import until
from tests.integration.app.deployments.conftest import request
from tests.integration.conftest import RedisServer

MODULES = dict.fromkeys(("serve", "shadow", "verify"), "tests.support.serving")
GB80 = 80 * 10**9


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    shares = {"share_serving": 0.5, "share_shadow": 0.125, "share_diagnosis": 0.25}
    return redis_server.settings.model_copy(
        update={"replica_lease_s": 15.0, "replica_renew_s": 0.2, "drain_s": 0.1, **shares}
    )


@pytest.fixture
def store(client: Redis, settings: Settings) -> DeploymentStore:
    return DeploymentStore(client, settings)


Begin = Callable[..., Agent]


@pytest.fixture
async def begin(store: DeploymentStore, settings: Settings) -> AsyncIterator[Begin]:
    begun: list[Agent] = []

    def on(host: str, *devices: str, named: str | None = None) -> Agent:
        settings_here = settings.model_copy(update={"advertise_host": named})
        announced = HostReport(
            agent="", host=host, loopback=host, devices=tuple(Device(id=one, bytes=GB80) for one in devices)
        )
        begun.append(Agent(settings_here, store, lambda _: None, modules=MODULES, host=announced))
        return begun[-1]

    yield on
    for agent in begun:
        await end(agent)


async def end(agent: Agent) -> None:
    await asyncio.to_thread(agent.stop, Interruptions())
    await agent.leave()


async def seen(store: DeploymentStore, made: Deployment) -> dict[str, str]:
    """The processes that are there, each with the devices that it sees itself."""
    return {one.id: one.device for one in await store.replicas(made.id)}


async def ticked(agents: list[Agent], condition: Callable[[], Awaitable[bool]]) -> None:
    async def tried() -> bool:
        for agent in agents:
            await agent.tick()
        return await condition()

    await until(tried)


async def runs(store: DeploymentStore, agents: list[Agent], made: Deployment, expected: dict[str, str]) -> None:
    async def so() -> bool:
        return await seen(store, made) == expected

    await ticked(agents, so)


async def test_replicas_stand_on_several_hosts_each_with_its_own_gpu(
    store: DeploymentStore, settings: Settings, begin: Begin
) -> None:
    first, second = begin("gpu-1", "0", "1"), begin("gpu-2", "3")
    await first.tick()
    await second.tick()
    assert [(one.host, one.devices[0].bytes) for one in await store.hosts()] == [("gpu-1", GB80), ("gpu-2", GB80)]
    made = await store.create(request(replicas=3), within_memory=True)
    await runs(store, [first, second], made, {"serve-0": "0", "serve-1": "1", "serve-2": "3", "shadow": "0"})
    reports = {one.host: one.places for one in (await store.reports([made.id]))[made.id]}
    assert reports == {
        "gpu-1": {"serve-0": ("0",), "serve-1": ("1",), "shadow": ("0",)},
        "gpu-2": {"serve-2": ("3",)},
    }
    assert (await store.get(made.id)).state is DeploymentState.READY

    with pytest.raises(HemostatError) as caught:
        await store.patch(made.id, DeploymentPatch(replicas=4), within_memory=True)
    assert caught.value.code is ErrorCode.DEPLOYMENT_CONFLICT
    assert "gpu-1: 0 0.12, 1 0.25; gpu-2: 3 0.25" in caught.value.detail
    await store.patch(made.id, DeploymentPatch(replicas=2), within_memory=True)
    await runs(store, [first, second], made, {"serve-0": "0", "serve-1": "1", "shadow": "0"})

    await store.delete(made.id)

    async def forgotten() -> bool:
        return await store.list() == []

    await ticked([first, second], forgotten)


async def test_several_deployments_share_devices_and_what_an_agent_leaves_moves(
    store: DeploymentStore, begin: Begin
) -> None:
    first, second = begin("gpu-1", "0"), begin("gpu-2", "0", "1")
    agents = [first, second]
    await first.tick()
    await second.tick()
    made = [await store.create(request(name=name), within_memory=True) for name in ("a", "b", "c")]
    with pytest.raises(HemostatError, match="serve-0 of d"):
        await store.create(request(name="d"), within_memory=True)
    for one, device in zip(made, ("0", "0", "1"), strict=True):
        await runs(store, agents, one, {"serve-0": device, "shadow": device})
    assert {one.host.host: {held.name for held in one.held.values()} for one in agents} == {
        "gpu-1": {"a"},
        "gpu-2": {"b", "c"},
    }

    await store.delete(made[1].id)  # its device is free for what moves

    async def left() -> bool:
        return len(await store.list()) == 2

    await ticked(agents, left)
    await end(first)
    await runs(store, [second], made[0], {"serve-0": "0", "shadow": "0"})
    assert {held.name for held in second.held.values()} == {"a", "c"}


async def test_a_split_model_takes_devices_of_one_host(
    store: DeploymentStore, settings: Settings, begin: Begin
) -> None:
    settings.models_file.write_text('[models.tiny]\npath = "tiny"\ntensor_parallel_size = 2\n')
    made = await store.create(request(), within_memory=True)  # before any host is known
    first, second = begin("gpu-1", "0"), begin("gpu-2", "4", "6")
    await first.tick()
    await second.tick()
    await runs(store, [first, second], made, {"serve-0": "4,6", "shadow": "4,6"})
    with pytest.raises(HemostatError, match="each of 2 devices"):
        await store.create(request(name="other"), within_memory=True)


async def test_a_deployment_that_has_no_room_keeps_no_other_out(
    store: DeploymentStore, settings: Settings, begin: Begin
) -> None:
    split = '[models.tiny]\npath = "tiny"\ntensor_parallel_size = 2\n'
    settings.models_file.write_text(split + '[models.whole]\npath = "tiny"\n')
    agent = begin("gpu-1", "0")
    await agent.tick()
    await store.create(request())
    whole = {"model": "whole"}
    made = await store.create(request(name="other", model=whole, reference=whole), within_memory=True)
    await runs(store, [agent], made, {"serve-0": "0", "shadow": "0"})


async def test_a_host_without_the_gateway_needs_a_name_that_others_reach_it_by(
    store: DeploymentStore, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = begin("gpu-1", "0"), begin("gpu-2", "0"), begin("gpu-3", "0", named="gpu-3.example")
    agents = [first, second, third]
    made = await store.create(request(replicas=3))
    serving = {f"serve-{number}": "0" for number in range(3)} | {"shadow": "0"}
    await runs(store, agents, made, serving)  # no gateway has been heard of
    monkeypatch.setattr("app.deployments.place_side.loopback", lambda: "gpu-1")
    await store.announce_gateway()
    await store.patch(made.id, DeploymentPatch(replicas=2))
    await runs(store, agents, made, {"serve-0": "0", "serve-1": "0", "shadow": "0"})
    assert [host.reached for host in await store.hosts()] == [True, False, True]
    assert {held.name for held in first.held.values()} == {held.name for held in third.held.values()} == {made.name}
    assert not second.held

    await end(first)
    await end(third)
    monkeypatch.setattr("app.deployments.place_side.loopback", lambda: "gpu-4")
    await store.announce_gateway()

    async def failed() -> bool:
        found = await store.get(made.id)
        return found.state is DeploymentState.FAILED and "HEMOSTAT_ADVERTISE_HOST" in found.reason

    await ticked([second], failed)


async def test_a_place_has_one_agent_also_if_both_plan_at_one_time(store: DeploymentStore, begin: Begin) -> None:
    """Each computes alone at first: it has not heard of the other."""
    made = await store.create(request())
    first, second = begin("gpu-1", "0"), begin("gpu-2", "1")
    await asyncio.gather(first.tick(), second.tick())
    for _ in range(2):
        await asyncio.gather(first.tick(), second.tick())
    places = [place for one in (await store.reports([made.id]))[made.id] for place in one.places]
    assert sorted(places) == ["serve-0", "shadow"]
    programs = [place for agent in (first, second) for held in agent.held.values() for place in held.programs]
    assert sorted(programs) == ["serve-0", "shadow"]
