"""The shadow process of one deployment: `python -m workers.shadow --deployment ID`.

It scores a share of the served traffic again with both models and keeps the correction right (docs/shadow.md). One
process a deployment, beside the jobs and never behind them. SIGTERM or SIGINT ends it within seconds; what it learnt
is in the deployment's folder. Exit status 0 when told to go or when the deployment was deleted, 1 when it cannot
start.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from threading import Thread
from typing import Final, NoReturn
from wsgiref.simple_server import WSGIServer

from workers.engine import environment

if __name__ == "__main__":
    environment.start_with_engine_environment()  # before torch is imported

from prometheus_client import start_http_server
from redis.exceptions import RedisError

from app.address import url_of
from app.contracts.deployment import Deployment, DeploymentState, Replica
from app.contracts.errors import ErrorCode, HemostatError
from app.deployments.store import DeploymentStore
from app.jobs.connection import connect
from app.secrets import hide_memory
from app.settings import Settings
from workers.calibration.online.loop import Gone, ShadowLoop
from workers.process.logs import configure_logging
from workers.process.priority import step_back
from workers.process.tasks import cancel
from workers.telemetry_shadow import ShadowTelemetry

logger = logging.getLogger("workers.shadow")  # also where it runs as __main__

POLL_S: Final = 1.0
# What computes gets so long to notice that it is to stop; then the process goes without it.
GRACE_S: Final = 3.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m workers.shadow", description="Shadow process of a deployment.")
    parser.add_argument("--deployment", required=True, help="id or name of the deployment")
    options = parser.parse_args(arguments)
    environment.prepare()
    settings = Settings()
    step_back(settings.shadow_nice)
    hide_memory()
    configure_logging("shadow", settings.log_level)
    try:
        return asyncio.run(serve(settings, options.deployment))
    except HemostatError as error:
        logger.error("%s; %s", error.detail, error.hint)  # noqa: TRY400 - it is reported whole
        return 1


async def serve(settings: Settings, name: str) -> int:
    """Works until told to go. Raises `HemostatError` when it cannot start."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    client = connect(settings)
    try:
        store = DeploymentStore(client, settings)
        deployment = await _deployment(store, name, told)
        if deployment is None:
            return 0
        await _watch(settings, store, deployment, told)
    finally:
        with contextlib.suppress(RedisError, OSError):
            await client.aclose()


async def _deployment(store: DeploymentStore, name: str, told: asyncio.Event) -> Deployment | None:
    """The deployment's record; waits for Redis. None: told to go meanwhile."""
    waited = False
    while not told.is_set():
        try:
            return await store.get(name)
        except (RedisError, OSError) as error:
            if not waited:
                logger.warning("Redis is not there (%s); waiting", type(error).__name__)
            waited = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(told.wait(), POLL_S)
    return None


async def _watch(settings: Settings, store: DeploymentStore, deployment: Deployment, told: asyncio.Event) -> NoReturn:
    telemetry = ShadowTelemetry(deployment.name)
    server, thread = _serve_metrics(settings, telemetry)
    url = f"{url_of(settings.advertise_host or settings.host, server.server_port)}/metrics"
    replica = Replica(
        id=f"shadow-{os.getpid()}",
        role="shadow",
        metrics_urls=(url,),
        host=socket.gethostname()[:200],
        pid=os.getpid(),
        started_at=time.time(),
    )
    logger.info("shadow of %s, metrics on %s", deployment.name, url)
    shadow = ShadowLoop(settings, store, deployment, telemetry)
    working = asyncio.create_task(shadow.run(), name="shadow")
    beating = asyncio.create_task(_heartbeat(settings, store, deployment.id, shadow, replica), name="heartbeat")
    asked = asyncio.create_task(told.wait(), name="told to go")
    try:
        await asyncio.wait({working, beating, asked}, return_when=asyncio.FIRST_COMPLETED)
        shadow.stop()
        await asyncio.wait({working}, timeout=GRACE_S)
        await cancel(beating, asked)
        for task in (working, beating):
            if task.done() and not task.cancelled() and not isinstance(task.exception(), Gone | None):
                raise task.exception() or RuntimeError
        with contextlib.suppress(RedisError, OSError):
            await store.leave(deployment.id, replica.id)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    logger.info("shadow of %s has gone", deployment.name)
    logging.shutdown()
    # What is worth keeping is on disk. A regular end would wait for the threads that compute, and then for vLLM.
    os._exit(0)


async def _heartbeat(
    settings: Settings, store: DeploymentStore, id_: str, shadow: ShadowLoop, replica: Replica
) -> None:
    """Renews the lease, and at once when the state changes. Raises `Gone` where the deployment was deleted."""
    said: tuple[DeploymentState, str] | None = None
    said_at = 0.0
    while True:
        now = shadow.said if shadow.redis_up else (DeploymentState.DEGRADED, "Redis is away")
        if now != said or time.monotonic() - said_at >= settings.replica_renew_s:
            state, reason = now
            try:
                await store.renew(id_, replica.model_copy(update={"state": state, "reason": reason[:1000]}))
                said, said_at = now, time.monotonic()
            except HemostatError as error:
                if error.code is ErrorCode.DEPLOYMENT_NOT_FOUND:
                    raise Gone from None
                raise
            except (RedisError, OSError):
                pass  # the loop says it
        await asyncio.sleep(min(0.25, settings.replica_renew_s / 4))


def _serve_metrics(settings: Settings, telemetry: ShadowTelemetry) -> tuple[WSGIServer, Thread]:
    port = settings.shadow_metrics_port
    try:
        return start_http_server(port, addr=settings.host, registry=telemetry.registry)
    except OSError as error:
        raise HemostatError(
            ErrorCode.UNAVAILABLE,
            f"the shadow's metrics cannot be served on {settings.host}:{port}: {error.strerror}",
            hint="set HEMOSTAT_SHADOW_METRICS_PORT to a free port (0: any)",
        ) from error


if __name__ == "__main__":
    sys.exit(main())
