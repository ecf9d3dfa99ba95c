"""How many requests a deployment takes: so many at each replica, so many more in a queue, no more than that.

The queue is first come, first served. Whoever is turned away is told how long the queue that is there will take, from
how long requests have taken lately.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from app.contracts.errors import ErrorCode
from app.gateway.errors import ApiError, no_room

MAX_RETRY_AFTER_S: Final = 60
_SMOOTHING: Final = 0.2  # weight of the newest duration in the running mean


class Line:
    """The queue of one deployment. `on_wait` is called for each request that has to wait."""

    def __init__(
        self,
        *,
        per_replica: int,
        most_queued: int,
        timeout_s: float,
        on_wait: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_replica = per_replica
        self._most_queued = most_queued
        self._timeout_s = timeout_s
        self._on_wait = on_wait
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._replicas = 1
        self._mean_s = 1.0
        self.in_flight = 0

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return sum(not turn.done() for turn in self._waiting)

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
    async def place(self) -> AsyncIterator[None]:
        """Waits for a place and holds it. Raises ApiError: 429 where the queue is full, 503 after the time-out."""
        await self._enter()
        began = self._clock()
        try:
            yield
        finally:
            self._mean_s += _SMOOTHING * (self._clock() - began - self._mean_s)
            self.in_flight -= 1
            self._let_in()

    async def _enter(self) -> None:
        if self.in_flight < self.capacity and not self.queued:
            self.in_flight += 1
            return
        if self.queued >= self._most_queued:
            raise ApiError(
                ErrorCode.RATE_LIMITED,
                f"{self.queued} requests wait for this model, and no more may.",
                hint="Wait as long as Retry-After says.",
                retry_after_s=self.retry_after_s(),
            )
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._on_wait()
        try:
            async with asyncio.timeout(self._timeout_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # its place was given to it at this very moment
                self.in_flight -= 1
                self._let_in()
            else:
                turn.cancel()
                self._waiting = deque(other for other in self._waiting if other is not turn)
            if isinstance(error, TimeoutError):
                raise no_room(self._timeout_s, self.retry_after_s()) from None
            raise

    def _let_in(self) -> None:
        while self._waiting and self.in_flight < self.capacity:
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)
