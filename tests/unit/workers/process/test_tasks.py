import asyncio
import logging
import sys

import pytest

from workers.process.tasks import cancel


async def test_a_task_that_swallows_a_cancellation_is_ended_all_the_same() -> None:
    swallowed = 0

    async def deaf() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                if swallowed == 2:
                    raise
                swallowed += 1

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    await asyncio.wait_for(cancel(task), 60)
    assert task.cancelled()
    assert swallowed == 2


async def test_wait_for_swallows_so_that_the_loop_is_needed() -> None:
    """The trap itself, as redis-py's `send_packed_command` sets it: a result and a cancellation in one step."""
    loop = asyncio.get_running_loop()
    rounds = 0

    async def sender() -> None:
        nonlocal rounds
        while True:
            future = loop.create_future()
            loop.call_soon(future.set_result, None)
            if rounds == 0:
                loop.call_soon(asyncio.current_task().cancel)  # type: ignore[union-attr]
            await asyncio.wait_for(future, 10)
            rounds += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(sender())
    for _ in range(100):
        await asyncio.sleep(0)
    survived = not task.done()
    await asyncio.wait_for(cancel(task), 60)
    assert task.done()
    # Later versions let the cancellation through.
    assert survived is (sys.version_info < (3, 12))
    assert (rounds > 1) is survived


async def test_an_error_of_a_task_is_logged_and_not_raised(caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> None:
        raise RuntimeError("no such thing")

    task = asyncio.create_task(broken(), name="the broken one")
    await asyncio.sleep(0)
    with caplog.at_level(logging.ERROR):
        await cancel(task)
    assert "the broken one" in caplog.text
    assert "no such thing" in caplog.text
