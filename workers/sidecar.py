"""The sidecars of a deployment, its shadow and its verify process: how they start, keep their lease, and end.

SIGTERM or SIGINT ends one within seconds. Exit status 0 then, or when the deployment was deleted; 1 if it cannot start
or fails at work.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal

from redis.exceptions import RedisError

from app.address import loopback
from app.contracts.deployment import Deployment, DeploymentState, Replica
from app.contracts.errors import ErrorCode, HemostatError
from app.deployments.devices import seen
from app.deployments.store import DeploymentStore
from app.jobs.connection import connect
from app.secrets import hide_memory
from app.settings import Settings
from workers.engine import environment
from workers.process.failures import safe_traceback
from workers.process.logs import configure_logging

logger = logging.getLogger(__name__)

# What is asked to stop gets so long; then the process goes without it.
GRACE_S: Final = 3.0
POLL_S: Final = 1.0
State = tuple[DeploymentState, str]
Work = Callable[[Settings, DeploymentStore, Deployment, asyncio.Event], Awaitable[None]]


def start(
    role: str, work: Work, arguments: Sequence[str] | None, *, prepare: Callable[[Settings], None] | None = None
) -> int:
    """Entry point of a role: does `work` for the named deployment, until its event is set. The exit status."""
    parser = argparse.ArgumentParser(
        prog=f"python -m workers.{role}", description=f"{role.capitalize()} process of a deployment."
    )
    parser.add_argument("--deployment", required=True, help="id or name of the deployment")
    options = parser.parse_args(arguments)
    environment.prepare()
    settings = Settings()
    if prepare is not None:
        prepare(settings)
    hide_memory()
    configure_logging(role, settings.log_level)
    return asyncio.run(_run(work, settings, options.deployment))


def replica_of(
    role: Literal["shadow", "verify"], metrics_urls: tuple[str, ...], *, url: str = "", secret: str = ""
) -> Replica:
    """This process as its lease describes it."""
    return Replica(
        id=f"{role}-{os.getpid()}",
        role=role,
        url=url,
        secret=secret,
        metrics_urls=metrics_urls,
        host=socket.gethostname()[:200],
        loopback=loopback(),
        device=seen(),
        pid=os.getpid(),
        started_at=time.time(),
    )


async def heartbeat(
    settings: Settings, store: DeploymentStore, deployment: str, replica: Replica, state: Callable[[], State]
) -> None:
    """Renews the lease, at once when the state changes. Returns when the deployment was deleted."""
    reported: State | None = None
    reported_at = 0.0
    while True:
        now = state()
        if now != reported or time.monotonic() - reported_at >= settings.replica_renew_s:
            try:
                await store.renew(deployment, replica.model_copy(update={"state": now[0], "reason": now[1][:1000]}))
                reported, reported_at = now, time.monotonic()
            except HemostatError as error:
                if error.code is ErrorCode.DEPLOYMENT_NOT_FOUND:
                    return
                raise
            except (RedisError, OSError) as error:
                logger.debug("Redis: %s", type(error).__name__)
        await asyncio.sleep(min(0.25, settings.replica_renew_s / 4))


async def leave(store: DeploymentStore, deployment: str, replica: Replica) -> None:
    """Gives the lease up, if the deployment and Redis are there."""
    with contextlib.suppress(RedisError, OSError, HemostatError):
        await store.leave(deployment, replica.id)


async def _run(work: Work, settings: Settings, name: str) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    client = connect(settings)
    status = 0
    try:
        store = DeploymentStore(client, settings)
        deployment = await _deployment(store, name, stopping)
        if deployment is None:
            return 0
        await work(settings, store, deployment, stopping)
    except HemostatError as error:
        logger.error("%s; %s", error.detail, error.hint)  # noqa: TRY400 - it is reported whole
        status = 1
    except Exception as error:
        logger.error("the process failed\n%s", safe_traceback(error))  # noqa: TRY400 - without values
        status = 1
    finally:
        with contextlib.suppress(RedisError, OSError):
            await client.aclose()
    logging.shutdown()
    # What is worth keeping is on disk. A regular end would wait for the threads that compute, and then for vLLM.
    os._exit(status)


async def _deployment(store: DeploymentStore, name: str, stopping: asyncio.Event) -> Deployment | None:
    """The deployment's record; waits for Redis. None: the process was asked to end meanwhile."""
    waited = False
    while not stopping.is_set():
        try:
            return await store.get(name)
        except (RedisError, OSError) as error:
            if not waited:
                logger.warning("Redis is not there (%s); waiting", type(error).__name__)
            waited = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), POLL_S)
    return None
