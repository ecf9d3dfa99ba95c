"""How many requests are let through at one time: so many at each replica, so many more in a queue, no more than that.

Owners of keys have their turns in a circle. Each may hold a share of the places and of the queue, so that no owner
delays the others. The queue of one owner is first come, first served. A refusal says how long the queue of this moment
will take, from how long requests have taken lately.
"""

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from app.contracts.errors import ErrorCode, HemostatError

MAX_RETRY_AFTER_S: Final = 60
_SMOOTHING: Final = 0.2  # weight of the newest duration in the running mean


class Line:
    """The queue for one thing, `what`. `on_wait` is called for each request that has to wait.

    `owner_share`: of the places, and of the queue, that one owner of keys may hold; 1: all of them. `late`: the code of
    the error after the time-out.
    """

    def __init__(
        self,
        *,
        per_replica: int,
        most_queued: int,
        timeout_s: float,
        owner_share: float = 1.0,
        what: str = "this model",
        late: ErrorCode = ErrorCode.REPLICA_UNAVAILABLE,
        on_wait: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_replica = per_replica
        self._most_queued = most_queued
        self._timeout_s = timeout_s
        self._owner_share = owner_share
        self._what = what
        self._late = late
        self._on_wait = on_wait
        self._clock = clock
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # by owner; the first has the next turn
        self._held: Counter[str] = Counter()  # places, by owner
        self._replicas = 1
        self._mean_s = 1.0

    @property
    def in_flight(self) -> int:
        """Requests that hold a place."""
        return self._held.total()

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return sum(self._queued(owner) for owner in self._waiting)

    def _queued(self, owner: str) -> int:
        return sum(not turn.done() for turn in self._waiting.get(owner, ()))

    def _share(self, owner: str, most: int) -> int:
        return max(1, math.floor(self._owner_share * most)) if owner and most else most

    @property
    def capacity(self) -> int:
        """Requests that are let through at one time."""
        return self._per_replica * self._replicas

    def retry_after_s(self) -> int:
        """Whole seconds until the queue of this moment will have been worked off, 1 to 60."""
        rounds = (self.queued + 1) / self.capacity
        return max(1, min(MAX_RETRY_AFTER_S, math.ceil(rounds * self._mean_s)))

    def resize(self, replicas: int) -> None:
        """Sets the number of replicas that take requests; more of them let waiting requests through."""
        self._replicas = max(1, replicas)
        self._let_in()

    @asynccontextmanager
    async def place(self, owner: str = "") -> AsyncIterator[None]:
        """Waits for a place and holds it. Raises HemostatError: 429 if the queue is full, 503 after the time-out."""
        await self._enter(owner)
        began = self._clock()
        try:
            yield
        finally:
            self._mean_s += _SMOOTHING * (self._clock() - began - self._mean_s)
            self._free(owner)

    def _has_room(self, owner: str) -> bool:
        return self.in_flight < self.capacity and self._held[owner] < self._share(owner, self.capacity)

    def _free(self, owner: str) -> None:
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]
        self._let_in()

    async def _enter(self, owner: str) -> None:
        if self._has_room(owner):  # then none of the owner's waits: `_let_in` gives each free place away at once
            self._held[owner] += 1
            return
        if self.queued >= self._most_queued or self._queued(owner) >= self._share(owner, self._most_queued):
            raise self._full(owner)
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(turn)
        self._on_wait()
        try:
            async with asyncio.timeout(self._timeout_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # its place was given to it at this very moment
                self._free(owner)
            else:
                turn.cancel()
                self._leave(owner, turn)
            if isinstance(error, TimeoutError):
                raise self.too_late() from None
            raise

    def too_late(self) -> HemostatError:
        """503: every place was held for as long as a request waits."""
        return HemostatError(
            self._late,
            f"No place for {self._what} became free within {self._timeout_s:g} s.",
            hint="Wait as long as Retry-After says.",
            retry_after_s=self.retry_after_s(),
        )

    def _full(self, owner: str) -> HemostatError:
        whose = "" if self._owner_share == 1 or not owner else f", {self._queued(owner)} of them of this key's owner"
        return HemostatError(
            ErrorCode.RATE_LIMITED,
            f"{self.queued} requests wait for {self._what}{whose}: the limit is reached.",
            hint="Wait as long as Retry-After says.",
            retry_after_s=self.retry_after_s(),
        )

    def _leave(self, owner: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(owner, deque())
        if turn in turns:
            turns.remove(turn)
        if not turns:
            self._waiting.pop(owner, None)

    def _let_in(self) -> None:
        while (owner := next((one for one in self._waiting if self._has_room(one)), None)) is not None:
            turns = self._waiting.pop(owner)
            turn = turns.popleft()
            if turns:
                self._waiting[owner] = turns  # behind the others
            if not turn.done():
                self._held[owner] += 1
                turn.set_result(None)
