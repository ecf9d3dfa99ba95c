import asyncio

from app.contracts.deployment import (
    Deployment,
    DeploymentEvent,
    DeploymentEventType,
)
from app.deployments.store import DeploymentStore
from tests.integration.app.deployments.asking import waited_for


async def test_events_are_numbered_and_waited_for(deployments: DeploymentStore, made: Deployment) -> None:
    async def later() -> None:
        await asyncio.sleep(0.05)
        alarm = DeploymentEvent(type=DeploymentEventType.ALARM, at=0.0, reason="above", evidence={"e_value": 120.5})
        await deployments.event(made.id, alarm)

    task = asyncio.create_task(later())
    found = await waited_for(lambda: deployments.events(made.id, 1, 2.0))
    await task
    assert [(number, event.type.value, event.evidence) for number, event in found] == [(2, "alarm", {"e_value": 120.5})]
    assert found[0][1].at > made.created_at
    assert await deployments.last_event(made.id) == 2
