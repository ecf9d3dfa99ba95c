"""Which replica answers: the least busy one that is ready, lives, and has the calibration that is asked for."""

import asyncio
import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from app.address import loopback
from app.contracts.deployment import IDENTITY, CalibrationMode, Deployment, DeploymentState, Replica
from app.contracts.errors import ErrorCode
from app.gateway.errors import ApiError, clean
from app.security.keys import is_loopback

SHUNNED_S: Final = 2.0  # a replica that failed is asked again after so long, unless it is the only one
LOOK_S: Final = 1.0  # a replica that is full is looked at again after so long at most
_URL: Final = re.compile(r"https?://[A-Za-z0-9.\[\]:_-]+/?")


class FullError(Exception):
    """Every replica that could answer has as many requests as it takes."""


@dataclass(frozen=True)
class Choice:
    """Where a request goes, and with which calibration version."""

    replica: Replica
    version: str


class Replicas:
    """Requests in flight at each replica, and which failed lately. Keys are replica ids: a restart has another."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._in_flight: Counter[str] = Counter()
        self._failed_at: dict[str, float] = {}
        self._freed = asyncio.Event()

    def in_flight(self, replica: Replica) -> int:
        """Requests that this gateway has at the replica."""
        return self._in_flight[replica.id]

    @contextmanager
    def busy(self, replica: Replica) -> Iterator[None]:
        """Counts one request at the replica."""
        self._in_flight[replica.id] += 1
        try:
            yield
        finally:
            self._in_flight[replica.id] -= 1
            if not self._in_flight[replica.id]:
                del self._in_flight[replica.id]
            self._freed.set()

    async def freed(self) -> None:
        """Waits until a request has ended, anywhere, and for a second at most."""
        if self._freed.is_set():
            self._freed = asyncio.Event()  # a new one: who waits for the old one is about to wake
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._freed.wait()

    def failed(self, replica: Replica) -> None:
        """The replica could not be reached, or broke off."""
        now = self._clock()
        self._failed_at = {key: at for key, at in self._failed_at.items() if now - at < SHUNNED_S}
        self._failed_at[replica.id] = now

    def choose(
        self,
        deployment: Deployment,
        pinned: str | None,
        tried: frozenset[str] = frozenset(),
        *,
        most: int | None = None,
    ) -> Choice | None:
        """The replica for a request; None if every one that serves has been `tried`.

        `pinned`: the version that the request insists on, None for the deployment's own. `most`: requests that a
        replica takes at one time. Raises ApiError: 503 where no replica serves, 400 where none has the pinned version;
        FullError where those that could answer are full.
        """
        serving = serving_replicas(deployment)
        if not serving:
            raise _nobody(deployment)
        if pinned is not None:
            having = [replica for replica in serving if pinned == IDENTITY or pinned in replica.versions]
            if not having:
                raise ApiError(
                    ErrorCode.PROFILE_NOT_FOUND,
                    f"No replica of this model has loaded the calibration {pinned}.",
                    status=400,
                    param="hemostat.calibration",
                    hint=f"Loaded: {', '.join(sorted({v for replica in serving for v in replica.versions}))}.",
                )
            serving = having
        left = [replica for replica in serving if replica.id not in tried]
        if not left:
            return None
        now = self._clock()
        shunned = {replica.id for replica in left if now - self._failed_at.get(replica.id, -1e9) < SHUNNED_S}
        # One that failed is no way out where the others are full.
        left = [replica for replica in left if replica.id not in shunned] or left
        free = [replica for replica in left if most is None or self._in_flight[replica.id] < most]
        if not free:
            raise FullError

        def rank(replica: Replica) -> tuple[bool, int, str]:
            return replica.state is not DeploymentState.READY, self._in_flight[replica.id], replica.id

        best = min(free, key=rank)
        return Choice(best, pinned or own_version(deployment, best))


def serving_replicas(deployment: Deployment) -> list[Replica]:
    """Those that take requests: ready ones, and degraded ones, which answer too."""
    states = (DeploymentState.READY, DeploymentState.DEGRADED)
    return [
        replica
        for replica in deployment.running
        if replica.role == "serve" and replica.state in states and _URL.fullmatch(replica.url) and reached(replica)
    ]


def reached(replica: Replica) -> bool:
    """Whether the address is one for this host: another host's loopback leads to whatever listens here."""
    here = not replica.loopback or not loopback() or replica.loopback == loopback()
    return here or not is_loopback(urlsplit(replica.url).hostname or "")


def own_version(deployment: Deployment, replica: Replica) -> str:
    """The deployment's active version where the replica has it, else the one before, else identity."""
    if deployment.calibration is CalibrationMode.OFF:
        return IDENTITY
    for version in (deployment.active_version, deployment.previous_version):
        if version is not None and (version == IDENTITY or version in replica.versions):
            return version
    return IDENTITY


def _nobody(deployment: Deployment) -> ApiError:
    if not all(map(reached, deployment.running)):
        return ApiError(
            ErrorCode.REPLICA_UNAVAILABLE,
            f"Replicas of {deployment.name} run on another host, and listen there on loopback only.",
            hint="Set HEMOSTAT_ADVERTISE_HOST on that host, and start its agent again.",
            retry_after_s=5,
        )
    told = clean(deployment.reason)[:200].rstrip(".")  # it may be the end of a process's log
    detail = f"No replica of {deployment.name} takes requests: it is {deployment.state.value}"
    return ApiError(
        ErrorCode.REPLICA_UNAVAILABLE,
        f"{detail} ({told})." if told else f"{detail}.",
        hint="Wait as long as Retry-After says; GET /v1/deployments shows each replica's state.",
        retry_after_s=5,
    )
