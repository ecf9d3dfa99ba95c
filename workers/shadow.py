"""The shadow process of one deployment: `python -m workers.shadow --deployment ID`.

It scores a share of the served traffic again with both models and keeps the correction right (docs/shadow.md). One
process per deployment, beside the jobs and never behind them. What it learnt is in the deployment's folder.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from threading import Thread
from wsgiref.simple_server import WSGIServer

from workers.engine import environment

if __name__ == "__main__":
    environment.start_with_engine_environment()  # before torch is imported

from prometheus_client import start_http_server

from app.address import listening_on, url_of
from app.contracts.deployment import Deployment, DeploymentState
from app.contracts.errors import ErrorCode, HemostatError
from app.deployments.store import DeploymentStore
from app.settings import Settings
from workers import sidecar
from workers.calibration.online.loop import Gone, ShadowLoop
from workers.process.priority import step_back
from workers.process.tasks import cancel
from workers.telemetry_shadow import ShadowTelemetry

logger = logging.getLogger("workers.shadow")  # also where it runs as __main__


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    return sidecar.start("shadow", _watch, arguments, prepare=lambda settings: step_back(settings.shadow_nice))


async def _watch(settings: Settings, store: DeploymentStore, deployment: Deployment, stopping: asyncio.Event) -> None:
    telemetry = ShadowTelemetry(deployment.name)
    server, thread = _serve_metrics(settings, telemetry)
    url = f"{url_of(settings.advertise_host or settings.host, server.server_port)}/metrics"
    replica = sidecar.replica_of("shadow", (url,))
    logger.info("shadow of %s, metrics on %s", deployment.name, url)
    shadow = ShadowLoop(settings, store, deployment, telemetry)

    def state() -> sidecar.State:
        return shadow.said if shadow.redis_up else (DeploymentState.DEGRADED, "Redis is away")

    working = asyncio.create_task(shadow.run(), name="shadow")
    beating = asyncio.create_task(sidecar.heartbeat(settings, store, deployment.id, replica, state), name="heartbeat")
    asked = asyncio.create_task(stopping.wait(), name="stopping")
    try:
        await asyncio.wait({working, beating, asked}, return_when=asyncio.FIRST_COMPLETED)
        shadow.stop()
        await asyncio.wait({working}, timeout=sidecar.GRACE_S)
        await cancel(beating, asked)
        for task in (working, beating):
            if task.done() and not task.cancelled() and not isinstance(task.exception(), Gone | None):
                raise task.exception() or RuntimeError
        await sidecar.leave(store, deployment.id, replica)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    logger.info("shadow of %s has gone", deployment.name)


def _serve_metrics(settings: Settings, telemetry: ShadowTelemetry) -> tuple[WSGIServer, Thread]:
    port, host = settings.shadow_metrics_port, listening_on(settings.host, settings.advertise_host)
    try:
        return start_http_server(port, addr=host, registry=telemetry.registry)
    except OSError as error:
        raise HemostatError(
            ErrorCode.UNAVAILABLE,
            f"the shadow's metrics cannot be served on {host}:{port}: {error.strerror}",
            hint="set HEMOSTAT_SHADOW_METRICS_PORT to a free port (0: any)",
        ) from error


if __name__ == "__main__":
    sys.exit(main())
