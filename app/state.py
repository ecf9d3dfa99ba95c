"""What the routes share: made once at start, reached through the request."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, cast

from docket import Docket
from redis.asyncio import Redis
from starlette.requests import HTTPConnection, Request

from app.bodies import Bodies
from app.deployments.store import DeploymentStore
from app.jobs.differences import Differences
from app.jobs.store import JobStore
from app.security.keys import KeyFile
from app.security.limits import TokenBuckets
from app.settings import Settings
from app.telemetry.metrics import Telemetry

_Parsed = TypeVar("_Parsed")


@dataclass
class Kept:
    """An answer, and when it was made."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    at: float = float("-inf")
    value: object = None


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
    bodies: Bodies
    tokens: TokenBuckets | None  # of models, per minute and owner; None without keys
    open_streams: Counter[str] = field(default_factory=Counter)  # by owner
    readiness: Kept = field(default_factory=Kept)


def state_of(connection: HTTPConnection) -> State:
    """The state of the application that got this request."""
    return cast(State, connection.app.state.hemostat)


async def parsed(request: Request, parse: Callable[[bytes], _Parsed]) -> _Parsed:
    """What `parse` makes of the request's body."""
    state = state_of(request)
    return await state.bodies.parsed(request, parse, limit=state.settings.max_body_bytes)
