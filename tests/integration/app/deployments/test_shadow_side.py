import asyncio

from redis.asyncio import Redis

from app.contracts.deployment import (
    Deployment,
    DriftState,
    ShadowStatus,
)
from app.contracts.errors import ErrorCode
from app.deployments.store import DeploymentStore
from app.settings import Settings
from tests.integration.app.deployments.asking import SECOND, refused, sample, until, waited_for
from tests.integration.app.deployments.conftest import replica


async def test_samples_come_out_in_order_up_to_the_bound(deployments: DeploymentStore, made: Deployment) -> None:
    pushed = [await deployments.push_sample(made.id, sample(number)) for number in range(5)]
    assert pushed == [True, True, True, False, False]
    assert await deployments.queue_depth(made.id) == 3
    assert await deployments.pop_samples(made.id, 2) == [sample(0), sample(1)]
    assert await deployments.pop_samples(made.id, 10) == [sample(2)]
    assert await deployments.pop_samples(made.id, 10, 0.02) == []


async def test_a_sample_is_waited_for(deployments: DeploymentStore, made: Deployment) -> None:
    async def later() -> None:
        await asyncio.sleep(0.05)
        await deployments.push_sample(made.id, sample(7))

    task = asyncio.create_task(later())
    assert await waited_for(lambda: deployments.pop_samples(made.id, 4, 2.0)) == [sample(7)]
    await task


async def test_token_ids_expire(
    client: Redis, deployments: DeploymentStore, lease_settings: Settings, made: Deployment
) -> None:
    brief = DeploymentStore(client, lease_settings.model_copy(update={"shadow_expiry_s": 0.5}))
    for number in range(3):
        await brief.push_sample(made.id, sample(number))

    async def expired() -> bool:
        return await deployments.queue_depth(made.id) == 0

    await until(expired)
    assert [key async for key in client.scan_iter("hemostat-deployments:sample:*")] == []
    assert await deployments.push_sample(made.id, sample(9))


async def test_what_the_shadow_found_is_shown(deployments: DeploymentStore, made: Deployment) -> None:
    status = ShadowStatus(drift=DriftState.OK, e_value=3.5, trial=SECOND)
    await deployments.register(made.id, replica(role="shadow"))
    await deployments.set_shadow(made.id, status)
    assert (await deployments.get(made.id)).shadow == status


async def test_what_a_shadow_that_is_gone_found_is_no_news(deployments: DeploymentStore, made: Deployment) -> None:
    await deployments.register(made.id, replica(role="shadow"))
    await deployments.set_shadow(made.id, ShadowStatus(drift=DriftState.OK, e_value=3.5))
    await deployments.leave(made.id, replica().id)
    left = (await deployments.get(made.id)).shadow
    assert left is not None
    assert (left.drift, left.e_value) == (DriftState.STALE, 3.5)
    assert "no shadow process" in left.reason


async def test_a_shadow_process_that_outlives_its_deployment_leaves_nothing(
    deployments: DeploymentStore, client: Redis, made: Deployment
) -> None:
    await deployments.delete(made.id)
    error = await refused(deployments.set_shadow(made.id, ShadowStatus()))
    assert error.code is ErrorCode.DEPLOYMENT_NOT_FOUND
    assert [key async for key in client.scan_iter("hemostat-deployments:shadow:*")] == []
