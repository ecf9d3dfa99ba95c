"""Work for a client that may leave, in a process that may be asked to go."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, Literal

from starlette.types import Receive

_MARGIN_S: Final = 1.0  # before the server cuts the connections that are left


async def until_left(
    work: Coroutine[Any, Any, None], receive: Receive, stopping: asyncio.Event, drain_s: float
) -> Literal["done", "client", "shutdown"]:
    """Runs `work` to its end, or cancels it: when the client leaves, or when the time to drain has nearly run out.

    What `work` raises is raised.
    """
    task = asyncio.create_task(work, name="gateway-exchange")
    left = asyncio.create_task(_left(receive), name="gateway-client")
    told = asyncio.create_task(_drained(stopping, drain_s), name="gateway-drain")
    try:
        await asyncio.wait((task, left, told), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return "done"
        return "client" if left.done() else "shutdown"
    finally:
        for other in (task, left, told):
            other.cancel()
        await asyncio.gather(task, left, told, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _drained(stopping: asyncio.Event, drain_s: float) -> None:
    await stopping.wait()
    await asyncio.sleep(max(0.0, drain_s - _MARGIN_S))
