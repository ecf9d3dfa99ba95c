"""A process of a deployment that serves nothing: it registers, renews and drains as a real one does.

`python -m tests.support.serving --deployment ID [--replica N]`. The deployment's metadata says how it behaves:
{"serving": "crash"} ends at once with a word on why, {"serving": "deaf"} does not drain.
"""

import argparse
import asyncio
import os
import signal
import sys

from redis.exceptions import RedisError

from app.contracts.deployment import DeploymentState, Replica
from app.contracts.errors import HemostatError
from app.deployments.devices import seen
from app.deployments.store import DeploymentStore
from app.jobs.connection import connect
from app.settings import Settings


async def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--deployment", required=True)
    parser.add_argument("--replica", type=int)
    given = parser.parse_args()
    settings = Settings()
    client = connect(settings)
    store = DeploymentStore(client, settings)
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        deployment = await store.get(given.deployment)
        how = deployment.metadata.get("serving", "")
        if how == "crash":
            sys.stderr.write("the weights are not there\n")
            return 3
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, (lambda: None) if how == "deaf" else told.set)
        serves = given.replica is not None
        replica = Replica(
            id=f"serve-{given.replica}" if serves else "shadow",
            role="serve" if serves else "shadow",
            state=DeploymentState.READY,
            device=seen(),
            pid=os.getpid(),
            metrics_urls=(f"http://127.0.0.1:{9000 + (given.replica or 0)}/metrics",),
        )
        while not told.is_set():
            try:
                await store.renew(deployment.id, replica)
            except HemostatError:
                return 0
            except (RedisError, OSError):
                pass  # it goes on
            try:
                await asyncio.wait_for(told.wait(), settings.replica_renew_s)
            except TimeoutError:
                continue
        await store.renew(deployment.id, replica.model_copy(update={"state": DeploymentState.DRAINING}))
        await store.leave(deployment.id, replica.id)
        return 0
    finally:
        await client.aclose()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
