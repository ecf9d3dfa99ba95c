"""How much of the memory that it may use Redis has in use, and what is refused when that is much.

Redis takes no write at all once its memory is full: no claim, no lease, no heartbeat. So the API takes nothing new well
before that, and what is there can go on, end, and leave.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from app.contracts.errors import ErrorCode, HemostatError

HIGH_WATER: Final = 0.8  # beyond it no job, no deployment and no sample is taken
LOW_WATER: Final = 0.7  # beyond it jobs that ended without a result are forgotten
_READ_S: Final = 1.0
_RETRY_AFTER_S: Final = 30


@dataclass(frozen=True)
class Usage:
    """Bytes in use, and of how many; `most` is 0 if the server has no limit, or does not say."""

    used: int = 0
    most: int = 0

    @property
    def ratio(self) -> float:
        """The share in use; 0 without a limit."""
        return self.used / self.most if self.most else 0.0

    @property
    def high(self) -> bool:
        """Whether nothing new is taken."""
        return self.ratio > HIGH_WATER

    @property
    def told(self) -> str:
        """In words."""
        return f"{self.ratio:.0%} of the memory that Redis may use ({self.most} bytes) is in use"


class RedisMemory:
    """The usage of one server, read at most once a second."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._usage = Usage()
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def usage(self) -> Usage:
        """As it was at most a second ago. Raises `RedisError`."""
        async with self._reading:
            if time.monotonic() - self._read_at >= _READ_S:
                self._usage = await self._read()
                self._read_at = time.monotonic()
        return self._usage

    async def require_room(self) -> None:
        """Raises HemostatError (UNAVAILABLE) beyond the high-water mark."""
        usage = await self.usage()
        if usage.high:
            raise HemostatError(
                ErrorCode.UNAVAILABLE,
                f"{usage.told}: the service takes no new jobs above {HIGH_WATER:.0%}.",
                hint=(
                    "Running jobs continue. Wait until some end, delete jobs that are not needed, or ask the "
                    "operator to raise `maxmemory`."
                ),
                retry_after_s=_RETRY_AFTER_S,
            )

    async def _read(self) -> Usage:
        try:
            told: dict[str, Any] = await self._client.info("memory")
        except ResponseError:  # not allowed to ask
            return Usage()
        return Usage(int(told.get("used_memory", 0)), int(told.get("maxmemory", 0)))
