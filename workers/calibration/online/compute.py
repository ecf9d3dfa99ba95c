"""A thread that computes, beside the event loop that keeps leases: engines and OpenMP teams stay with their thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from workers.engine.errors import is_gpu_failure

T = TypeVar("T")


class Stopped(Exception):  # noqa: N818 - not an error: somebody wanted it to stop
    """What ran was asked to stop."""


class GpuFailed(Exception):  # noqa: N818 - what happened, as `Stopped`
    """A GPU failed: whatever this process computes from now on fails, too. It is to end, and another one begins."""


class Compute:
    """Calls functions one after the other in a thread of its own, and can tell the running one to stop.

    A function takes `check_cancelled`, which raises `Stopped` once `stop` was called.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._stop = threading.Event()
        self._busy = 0

    @property
    def busy(self) -> bool:
        """Whether something runs or waits."""
        return self._busy > 0

    def check(self) -> None:
        """Raises `Stopped` once `stop` was called."""
        if self._stop.is_set():
            raise Stopped

    async def run(self, function: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
        """Its result; `check_cancelled` is added to its arguments. Raises what it raises, and `GpuFailed`."""
        call = partial(function, *arguments, check_cancelled=self.check, **keywords)
        return await self._call(call)

    async def plain(self, function: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
        """`run` for a function that cannot be stopped."""
        return await self._call(partial(function, *arguments, **keywords))

    async def _call(self, call: Callable[[], T]) -> T:
        self.check()
        self._busy += 1
        future = asyncio.get_running_loop().run_in_executor(self._thread, call)
        future.add_done_callback(self._done)
        try:
            return await asyncio.shield(future)
        except Exception as error:
            if is_gpu_failure(error):
                raise GpuFailed("a GPU failed: only another process can go on") from error
            raise

    def stop(self) -> None:
        """Asks what runs to stop, and starts nothing more."""
        self._stop.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._busy -= 1
        if not future.cancelled():
            future.exception()  # anyone who asked may have gone: it is looked at here, so that no one complains
