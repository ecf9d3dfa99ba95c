"""Which deployments there are and which replicas serve them: the store's list, at most a second old.

While Redis is away the last known list stays, so that serving goes on. The lease of a living replica may run out in the
store meanwhile. So after an outage the replicas known before it are kept until they have had the time to register
again.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

from redis.exceptions import RedisError

from app.contracts.deployment import Deployment
from app.contracts.errors import ErrorCode
from app.gateway.errors import ApiError
from app.models.nearest import suggestion

logger = logging.getLogger(__name__)

MAX_AGE_S: Final = 1.0
FRESH_S: Final = 0.5  # an older list is read again behind the look-up
PATIENCE_S: Final = 3.0  # for Redis; longer than its client's connect timeout
RETRY_S: Final = 1.0  # between two attempts while it is away
AWAY_S: Final = 10.0  # an outage that was seen so long ago may be over
GRACE_S: Final = 15.0  # a lease, and then some


class Store(Protocol):
    """What is read of the deployment store."""

    changes: int  # that this process has made; one more after each

    async def list(self) -> "list[Deployment]":
        """All deployments, with their running replicas."""


class Directory:
    """`find` answers from memory. A look-up asks the store first if the name is not known, if the list is too old, or
    if this process changed a deployment since.

    `on_read` is called with what was read, each time.
    """

    on_read: Callable[[list[Deployment]], None] | None = None

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._by_name: dict[str, Deployment] | None = None
        self._read_at = -1e9  # when the last read that went well began
        self._read_changes = -1  # and the store's changes then
        self._tried_at = -1e9
        self._grace_until = -1e9
        self._reading: asyncio.Task[None] | None = None
        self.stale = False

    @property
    def known(self) -> dict[str, str]:
        """Names of the deployments that were last read, by id."""
        return {one.id: one.name for one in (self._by_name or {}).values()}

    async def all(self) -> list[Deployment]:
        """Every deployment as it is now, oldest first. Raises ApiError (503) where none was ever read."""
        await self.refresh()
        known = await self._known()
        return sorted(known.values(), key=lambda deployment: (deployment.created_at, deployment.name))

    async def find(self, name: str) -> Deployment:
        """The deployment of this name. Raises ApiError: 404 with the nearest name, 503 as `all`."""
        known = await self._known()
        if name not in known:
            await self.refresh()
            known = await self._known()
        found = known.get(name)
        if found is None:
            hint = suggestion(name[:64], known)
            raise ApiError(
                ErrorCode.DEPLOYMENT_NOT_FOUND,
                f"The model {name[:64]!a} does not exist.",
                param="model",
                hint=hint[:1].upper() + hint[1:],
            )
        return found

    async def refresh(self) -> None:
        """Reads the store now (callers share one read); an outage leaves the last known list."""
        reading = self._start()
        if reading is not None:
            await asyncio.shield(reading)

    async def close(self) -> None:
        """Ends a read that is under way."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _known(self) -> dict[str, Deployment]:
        if self._overdue():
            await self.refresh()
            if self._outdated() and not self.stale:  # the read was under way already when this process made a change
                await self.refresh()
        if self._clock() - self._read_at > FRESH_S:
            self._start()
        if self._by_name is None:
            raise ApiError(
                ErrorCode.UNAVAILABLE, "The list of deployments cannot be read at the moment.", retry_after_s=2
            )
        return self._by_name

    def _overdue(self) -> bool:
        """Whether the list must not be used before the store was asked. While Redis is away there is no other."""
        if self._by_name is None:
            return True
        now = self._clock()
        away = self.stale and now - self._tried_at < AWAY_S
        return (now - self._read_at > MAX_AGE_S or self._outdated()) and not away

    def _outdated(self) -> bool:
        """Whether this process has changed a deployment since the list was read."""
        return self._read_changes != self._store.changes

    def _start(self) -> asyncio.Task[None] | None:
        """The read that is under way, or a new one; None if Redis is away and was tried just now."""
        if self._reading is None or self._reading.done():
            if self.stale and self._clock() - self._tried_at < RETRY_S:
                return None
            self._tried_at = self._clock()
            self._reading = asyncio.create_task(self._read(), name="gateway-directory")
        return self._reading

    async def _read(self) -> None:
        began, changes = self._clock(), self._store.changes
        try:
            async with asyncio.timeout(PATIENCE_S):
                listed = await self._store.list()
        except (RedisError, OSError, TimeoutError) as error:
            if not self.stale:
                logger.warning("deployments cannot be read (%s): the last known list stays", type(error).__name__)
            self.stale = True
            return
        now = self._clock()
        if self.stale and self._by_name is not None:
            logger.warning("deployments can be read again")
            self._grace_until = now + GRACE_S
        self.stale = False
        before = self._by_name or {}
        kept = now < self._grace_until
        self._by_name = {new.name: _with_known(new, before.get(new.name)) if kept else new for new in listed}
        self._read_at, self._read_changes = began, changes
        if self.on_read is not None:
            self.on_read(list(self._by_name.values()))


def _with_known(new: Deployment, old: Deployment | None) -> Deployment:
    """The deployment with the replicas of before that have not registered again yet."""
    if old is None or old.id != new.id:
        return new
    back = {replica.id for replica in new.running}
    missing = tuple(replica for replica in old.running if replica.id not in back)
    return new.model_copy(update={"running": new.running + missing}) if missing else new
