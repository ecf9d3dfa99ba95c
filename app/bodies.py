"""Bodies of requests, read and parsed so that neither memory nor the event loop is one client's.

Large ones are read a few at a time, of one client one at a time, and parsed one at a time, in a thread.
"""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar
from weakref import WeakValueDictionary

from starlette.requests import Request

from app.contracts.errors import ErrorCode, HemostatError
from app.security.scopes import client_of

SMALL: Final = 65_536  # bytes that many may send at one time
READ_S: Final = 30.0  # for the rest of a large one
_Parsed = TypeVar("_Parsed")


class TooLargeError(Exception):
    """The body is beyond the limit; the rest of it is not read."""


class Bodies:
    """`at_once`: large bodies that are held at one time; the senders of others wait. `inline`: bytes that are parsed
    on the event loop. `read_s`: seconds that a large body has, from its turn on."""

    def __init__(self, at_once: int, *, inline: int = 0, read_s: float = READ_S) -> None:
        self._reading = asyncio.Semaphore(at_once)
        self._parsing = asyncio.Semaphore(1)
        self._clients: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # as long as one is used
        self._inline = inline
        self._read_s = read_s

    async def parsed(self, request: Request, parse: Callable[[bytes], _Parsed], *, limit: int) -> _Parsed:
        """What `parse` makes of the body. Raises what it raises, TooLargeError, and HemostatError
        (BODY_TOO_SLOW)."""
        body = _Body(request)
        if await body.read(min(SMALL, limit)):
            return parse(body.whole()) if body.size <= self._inline else await asyncio.to_thread(parse, body.whole())
        one = self._clients.setdefault(client_of(request.scope), asyncio.Lock())  # a slow sender delays no other client
        async with one, self._reading:
            if body.size > limit or not await self._read_on(body, limit):
                raise TooLargeError
            async with self._parsing:
                return await asyncio.to_thread(parse, body.whole())

    async def _read_on(self, body: "_Body", limit: int) -> bool:
        try:
            async with asyncio.timeout(self._read_s):
                return await body.read(limit)
        except TimeoutError:
            told = f"The body was not there within {self._read_s:g} s; {body.size} bytes of it had come."
            raise HemostatError(ErrorCode.BODY_TOO_SLOW, told) from None


class _Body:
    def __init__(self, request: Request) -> None:
        self.size = 0
        self._stream = request.stream()
        self._parts: list[bytes] = []

    async def read(self, most: int) -> bool:
        """Reads on; whether all of it has come before it had more than `most` bytes."""
        async for part in self._stream:
            self._parts.append(part)
            self.size += len(part)
            if self.size > most:
                return False
        return True

    def whole(self) -> bytes:
        """All of it, which is then held by the caller alone."""
        whole = b"".join(self._parts)
        self._parts.clear()
        return whole
