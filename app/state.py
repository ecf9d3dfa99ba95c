"""What the routes share: made once at start, reached through the request."""

import asyncio
from dataclasses import dataclass
from typing import cast

from docket import Docket
from redis.asyncio import Redis
from starlette.requests import HTTPConnection

from app.deployments.store import DeploymentStore
from app.jobs.differences import Differences
from app.jobs.store import JobStore
from app.security.keys import KeyFile
from app.settings import Settings
from app.telemetry.metrics import Telemetry


@dataclass
class State:
    """The front end's parts. `stopping` is set when the process has been told to go: streams end, readiness is off."""

    settings: Settings
    telemetry: Telemetry
    redis: Redis
    store: JobStore
    deployments: DeploymentStore
    docket: Docket
    keys: KeyFile | None
    stopping: asyncio.Event
    differences: Differences
    open_streams: int = 0


def state_of(connection: HTTPConnection) -> State:
    """The state of the application that got this request."""
    return cast(State, connection.app.state.hemostat)
