"""Questions to a deployment store, as its tests ask them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.contracts.deployment import (
    CalibrationMode,
    Deployment,
    DeploymentEvent,
    DeploymentEventType,
    DeploymentPatch,
    ShadowSample,
)
from app.contracts.errors import HemostatError
from app.deployments.store import DeploymentStore

FIRST, SECOND = "cal-" + "1" * 16, "cal-" + "2" * 16
OFF, AUTO, FROZEN = (
    DeploymentPatch(calibration=mode) for mode in (CalibrationMode.OFF, CalibrationMode.AUTO, CalibrationMode.FROZEN)
)


async def told(store: DeploymentStore, deployment: Deployment) -> list[DeploymentEvent]:
    return [event for _, event in await store.events(deployment.id)]


async def states(store: DeploymentStore, deployment: Deployment) -> list[Any]:
    events = await told(store, deployment)
    return [event.evidence["state"] for event in events if event.type is DeploymentEventType.STATE]


async def refused(awaitable: Awaitable[Any]) -> HemostatError:
    with pytest.raises(HemostatError) as caught:
        await awaitable
    return caught.value


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(90):
        while not await condition():  # noqa: ASYNC110 - it is Redis that changes
            await asyncio.sleep(0.02)


async def waited_for(ask: Callable[[], Awaitable[list[Any]]]) -> list[Any]:
    """The first answer with something in it. Each of these few questions has to wait, or all of them are too early."""
    for _ in range(5):
        if found := await ask():
            return found
    return []


def sample(number: int) -> ShadowSample:
    return ShadowSample(id=f"r{number}", prompt=(1, 2), output=(3,), version="identity", at=0.0)
