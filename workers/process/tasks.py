"""Ending asyncio tasks for certain."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from workers.process.failures import safe_traceback

logger = logging.getLogger(__name__)

AGAIN_S: Final = 0.2


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancels tasks and waits until they are done; errors that they ended with are logged.

    One request is not enough. Before Python 3.12 `asyncio.wait_for`, which redis-py uses, swallows a cancellation that
    arrives in the same step as the result. A task that loops would go on for ever.
    """
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=AGAIN_S)
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s ended with an error\n%s", task.get_name(), safe_traceback(error))
