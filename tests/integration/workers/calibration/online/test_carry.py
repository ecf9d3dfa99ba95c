"""What the loop decided, carried out over a real Valkey while a person decides, too."""

import time
from collections.abc import AsyncIterator

import pytest

from app.contracts.deployment import Deployment, DeploymentEventType
from app.deployments.store import DeploymentStore
from app.jobs.connection import connect
from app.settings import Settings
from tests.integration.app.deployments.conftest import request
from tests.integration.conftest import RedisServer
from workers.calibration.online.carry import carry_out
from workers.calibration.online.controller import Action, Step
from workers.calibration.online.monitor import Monitor
from workers.calibration.online.state import Todo
from workers.calibration.online.threshold import Expected

FIRST, SECOND = "cal-" + "1" * 16, "cal-" + "2" * 16


@pytest.fixture
def settings(redis_server: RedisServer) -> Settings:
    return redis_server.settings


@pytest.fixture
async def deployments(settings: Settings) -> AsyncIterator[DeploymentStore]:
    client = connect(settings)
    yield DeploymentStore(client, settings)
    await client.aclose()


def decided(settings: Settings, made: Deployment, step: Step) -> tuple[Monitor, Todo]:
    """A monitor that knows the deployment as it was, and what was decided then."""
    book = Monitor(settings, made, Expected(), None, time.time())
    todo = Todo(step=step, active=made.active_version, at=time.time())
    book.state = book.state.model_copy(update={"todo": (todo,)})
    return book, todo


@pytest.mark.parametrize(
    ("before", "step"),
    [
        ("identity", Step(action=Action.PROMOTE, version=SECOND, reason="it is better")),
        (SECOND, Step(action=Action.ROLL_BACK, version="identity", reason="it is worse")),
    ],
    ids=["promotion", "rollback"],
)
async def test_a_person_who_promotes_while_a_batch_is_scored_is_not_overruled(
    deployments: DeploymentStore, settings: Settings, before: str, step: Step
) -> None:
    made = await deployments.create(request(version=None if before == "identity" else before))
    book, todo = decided(settings, made, step)
    await deployments.promote(made.id, FIRST, reason="by hand", manual=True)  # after the loop's last look
    await carry_out(book, todo, deployments, time.time())
    assert (await deployments.get(made.id)).active_version == FIRST
    assert book.state.todo == ()
    last = [event for _, event in await deployments.events(made.id)][-1]
    assert last.type is DeploymentEventType.REFUSED
    assert "Another version" in last.reason
