"""Bodies of requests, read and parsed so that neither memory nor the event loop is one client's.

Large ones are read a few at a time, and parsed one at a time, in a thread.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final, TypeVar

from starlette.requests import Request

SMALL: Final = 65_536  # bytes that many may send at one time
_Parsed = TypeVar("_Parsed")


class TooLargeError(Exception):
    """The body is beyond the limit; the rest of it is not read."""


class Bodies:
    """`at_once`: large bodies that are held at one time, the senders of others wait; `inline`: bytes that are parsed on
    the event loop."""

    def __init__(self, at_once: int, *, inline: int = 0) -> None:
        self._reading = asyncio.Semaphore(at_once)
        self._parsing = asyncio.Semaphore(1)
        self._inline = inline

    async def parsed(self, request: Request, parse: Callable[[bytearray], _Parsed], *, limit: int) -> _Parsed:
        """What `parse` makes of the body. Raises what it raises, and TooLargeError."""
        body, stream = bytearray(), request.stream()
        if await _filled(body, stream, min(SMALL, limit)):
            return parse(body) if len(body) <= self._inline else await asyncio.to_thread(parse, body)
        async with self._reading:
            if len(body) > limit or not await _filled(body, stream, limit):
                raise TooLargeError
            async with self._parsing:
                return await asyncio.to_thread(parse, body)


async def _filled(body: bytearray, stream: AsyncIterator[bytes], most: int) -> bool:
    """Adds to the body; whether all of it has come before it had more than `most` bytes."""
    async for part in stream:
        body += part
        if len(body) > most:
            return False
    return True
