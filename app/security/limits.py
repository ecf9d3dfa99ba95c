"""Token buckets: how many requests a client may make, and how many tokens of a model it may use."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable


class TokenBuckets:
    """One bucket per client, full at `per_minute` tokens and filled at that rate.

    Kept in memory: there is one API process. The client that was seen longest ago is forgotten beyond `clients`; its
    bucket would most likely be full again.
    """

    def __init__(self, per_minute: int, *, clients: int = 10_000, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._rate = per_minute / 60.0
        self._clients = clients
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str) -> int:
        """0 if there is a token, else the whole seconds until there is one."""
        level = self._level(client)
        return 0 if level >= 1 else max(1, math.ceil((1 - level) / self._rate))

    def charge(self, client: str, tokens: int) -> None:
        """Takes tokens, also more than there are: the debt is paid back before the next one is there."""
        self._set(client, self._level(client) - tokens)

    def left(self, client: str) -> int:
        """Tokens that are there."""
        return max(0, math.floor(self._level(client)))

    def _level(self, client: str) -> float:
        now = self._clock()
        level, then = self._buckets.get(client, (float(self.per_minute), now))
        return min(float(self.per_minute), level + (now - then) * self._rate)

    def _set(self, client: str, level: float) -> None:
        self._buckets.pop(client, None)
        self._buckets[client] = (level, self._clock())
        if len(self._buckets) > self._clients:
            self._buckets.popitem(last=False)
