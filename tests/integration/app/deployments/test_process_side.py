from datetime import timedelta

from redis.asyncio import Redis

from app.contracts.deployment import (
    Deployment,
    DeploymentPatch,
    DeploymentState,
)
from app.contracts.errors import ErrorCode
from app.deployments import keys
from app.deployments.report import AgentReport
from app.deployments.store import DeploymentStore
from app.settings import Settings
from tests.integration.app.deployments.asking import FIRST, refused, sample, states, told, until
from tests.integration.app.deployments.conftest import replica, request


async def test_the_state_follows_the_replicas(deployments: DeploymentStore, made: Deployment) -> None:
    await deployments.patch(made.id, DeploymentPatch(replicas=2))
    await deployments.register(made.id, replica(0, state="starting", reason="loading weights"))
    starting = await deployments.get(made.id)
    assert (starting.state, "loading weights" in starting.reason) == (DeploymentState.STARTING, True)
    await deployments.renew(made.id, replica(0))
    await deployments.renew(made.id, replica(0))
    assert (
        await deployments.get(made.id)
    ).reason == "1 of 2 replicas are ready: no agent runs it yet; `hemostat serve` does"
    await deployments.register(made.id, replica(1))
    ready = await deployments.get(made.id)
    assert (ready.state, ready.reason) == (DeploymentState.READY, "")
    assert [(one.id, one.state.value) for one in ready.running] == [("serve-0", "ready"), ("serve-1", "ready")]
    await deployments.leave(made.id, "serve-1")
    await deployments.leave(made.id, "serve-0")
    assert (await deployments.get(made.id)).state is DeploymentState.DEGRADED
    assert await states(deployments, made) == ["degraded", "ready", "degraded"]


async def test_a_replica_that_falls_silent_is_gone(
    client: Redis, deployments: DeploymentStore, lease_settings: Settings, made: Deployment
) -> None:
    brief = DeploymentStore(client, lease_settings.model_copy(update={"replica_lease_s": 0.2}))
    await deployments.register(made.id, replica())
    assert (await deployments.get(made.id)).state is DeploymentState.READY
    await brief.renew(made.id, replica())

    async def noticed() -> bool:
        return await deployments.settle(made.id) is DeploymentState.DEGRADED

    await until(noticed)
    assert await deployments.replicas(made.id) == []
    assert [event.type.value for event in await told(deployments, made)][-2:] == ["replica", "state"]
    await deployments.renew(made.id, replica())
    assert (await deployments.get(made.id)).state is DeploymentState.READY


async def test_what_the_agent_says_is_the_reason(deployments: DeploymentStore, made: Deployment) -> None:
    await deployments.report(made.id, AgentReport(processes=1, fault="serve-0 ended twice: no weights"))
    assert (await deployments.get(made.id)).state is DeploymentState.STARTING
    await deployments.report(made.id, AgentReport(fault="serve-0 ended 5 times: no weights", failed=True))
    failed = await deployments.get(made.id)
    assert (failed.state, failed.reason) == (DeploymentState.FAILED, "serve-0 ended 5 times: no weights")
    await deployments.register(made.id, replica())
    await deployments.report(made.id, AgentReport(processes=1))
    assert (await deployments.get(made.id)).state is DeploymentState.READY


async def test_a_deleted_deployment_is_forgotten_when_its_processes_are_gone(
    client: Redis, deployments: DeploymentStore, made: Deployment
) -> None:
    await deployments.report(made.id, AgentReport(processes=1))
    await deployments.register(made.id, replica())
    await deployments.push_sample(made.id, sample(1))
    await deployments.delete(made.id)
    await deployments.delete(made.id)
    assert (await deployments.get(made.id)).state is DeploymentState.DRAINING
    for change in (
        deployments.patch(made.id, DeploymentPatch(replicas=2)),
        deployments.promote(made.id, FIRST, reason="asked", manual=True),
    ):
        assert (await refused(change)).code is ErrorCode.DEPLOYMENT_CONFLICT
    await deployments.leave(made.id, "serve-0")
    assert await deployments.report(made.id, AgentReport(processes=0)) == "forgotten"
    assert (await refused(deployments.get(made.id))).code is ErrorCode.DEPLOYMENT_NOT_FOUND
    assert (await refused(deployments.renew(made.id, replica()))).code is ErrorCode.DEPLOYMENT_NOT_FOUND
    assert [event.type.value for event in await told(deployments, made)][-1] == "deleted"
    left = [key async for key in client.scan_iter("hemostat-deployments:*") if await client.ttl(key) < 0]
    # What is noted of the server's disk holds no id, and stays until the samples that were queued have left it.
    assert left == [keys.DISK]
    assert set(await client.hkeys(keys.DISK)) == {"until", "since"}
    assert (await deployments.create(request())).id != made.id


async def test_no_lease_holds_on_because_the_clock_of_redis_went_back(
    client: Redis, deployments: DeploymentStore, made: Deployment
) -> None:
    await deployments.register(made.id, replica())
    place = {"serve-0": ("cpu",)}
    await deployments.report(made.id, AgentReport(agent="dead", places=place, processes=1))
    assert await deployments.report(made.id, AgentReport(agent="alive", places=place)) == "other"
    for name in (keys.replica(made.id, replica().id), keys.agent(made.id, "dead")):
        assert await client.expire(name, timedelta(days=30))
    assert await deployments.settle(made.id) is DeploymentState.DEGRADED
    assert await deployments.replicas(made.id) == []
    assert await deployments.report(made.id, AgentReport(agent="alive", places=place, processes=1)) != "other"
    await deployments.renew(made.id, replica())
    assert (await deployments.get(made.id)).state is DeploymentState.READY
