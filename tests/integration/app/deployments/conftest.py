"""A deployment store over a real Valkey, with a short queue of samples."""

from typing import Any

import pytest
from redis.asyncio import Redis

from app.contracts.deployment import Deployment, DeploymentRequest, Replica
from app.deployments.store import DeploymentStore
from app.settings import Settings
from tests.integration.conftest import RedisServer


def request(**changes: Any) -> DeploymentRequest:
    """A valid request for the model `tiny`."""
    body = {
        "name": "tiny-rtn4",
        "model": {"model": "tiny", "recipe": [{"type": "quantize.rtn", "bits": 4, "group_size": 64}]},
        "reference": {"model": "tiny"},
    }
    return DeploymentRequest.model_validate(body | changes)


def replica(number: int = 0, **changes: Any) -> Replica:
    return Replica.model_validate({"id": f"serve-{number}", "state": "ready"} | changes)


@pytest.fixture
def lease_settings(redis_server: RedisServer) -> Settings:
    return redis_server.settings.model_copy(update={"shadow_queue": 3})


@pytest.fixture
def deployments(client: Redis, lease_settings: Settings) -> DeploymentStore:
    return DeploymentStore(client, lease_settings)


@pytest.fixture
async def made(deployments: DeploymentStore) -> Deployment:
    return await deployments.create(request())
