"""What we use of docket that it does not document, against the installed one: an upgrade fails here first."""

import asyncio
import inspect
from datetime import timedelta
from importlib import metadata

from docket import Docket, Worker
from docket.dependencies import AdmissionBlocked

from app.jobs import queue
from app.jobs.ids import new_job_id
from tests.integration.conftest import RedisServer

USED = {
    Docket: "name url heartbeat_interval missed_heartbeats execution_ttl",
    Docket.add: "function key",
    Docket.cancel: "key",
    Docket.register: "function names",
    Docket.replace: "function when key",
    Docket.runs_key: "task_key",
    Worker: "docket name concurrency redelivery_timeout reconnection_delay schedule_automatic_tasks",
    Worker.run_forever: "",
    AdmissionBlocked: "execution reason handled",
}


def test_docket_takes_what_we_give() -> None:
    faults = {
        what.__qualname__: lacking
        for what, wanted in USED.items()
        if (lacking := set(wanted.split()) - set(inspect.signature(what).parameters))
    }
    assert not faults, f"docket {metadata.version('pydocket')} does not take {faults}: see app/jobs/queue.py"


async def test_docket_keeps_state_and_message_of_a_task_where_we_read_them(redis_server: RedisServer) -> None:
    job_id, given = new_job_id(), asyncio.Event()
    seen: list[tuple[bool, bytes, int, int]] = []

    async def run_job(job_id: str) -> None:
        message = queue.message_id()
        known = (await queue.known(docket, [job_id]))[job_id]
        await asyncio.sleep(0.3)
        before = await idle_ms(message)
        await queue.renew(docket, "w1", message)
        seen.append((known, message, before, await idle_ms(message)))
        given.set()
        raise queue.left_open()

    async def idle_ms(message: bytes) -> int:
        async with docket.redis() as redis:
            (one,) = await redis.xpending_range(docket.stream_key, docket.worker_group_name, message, message, 1)
        return int(one["time_since_delivered"])

    async with queue.make_docket(redis_server.settings) as docket:
        docket.tasks.clear()
        docket.register(run_job, names=[queue.TASK_NAME])
        assert await queue.known(docket, [job_id]) == {job_id: False}
        assert await queue.submit(docket, job_id)
        assert await queue.known(docket, [job_id]) == {job_id: True}
        async with Worker(docket, name="w1", concurrency=1, redelivery_timeout=timedelta(minutes=2)) as worker:
            working = asyncio.create_task(worker.run_forever())
            await asyncio.wait_for(given.wait(), 90)
        await working
        ((running, message, before, after),) = seen
        assert running
        assert before >= 300 > after, "the claim is new"
        assert await idle_ms(message) >= 0, "a message that was left open is not acknowledged"
        await queue.give_back(docket, job_id)
        assert await queue.known(docket, [job_id]) == {job_id: True}
