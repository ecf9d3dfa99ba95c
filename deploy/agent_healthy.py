#!/usr/bin/env python3
"""For the health check of `hemostat serve`: ends with 0 when Redis answers and every deployment is held by an agent."""

import asyncio
import sys

from redis.exceptions import RedisError

from app.contracts.deployment import DeploymentState
from app.deployments.store import DeploymentStore
from app.jobs.connection import connect
from app.settings import Settings


async def left_alone(settings: Settings) -> list[str]:
    """Names of deployments whose agent has not been heard of for longer than its lease."""
    client = connect(settings)
    try:
        store = DeploymentStore(client, settings)
        found = [one for one in await store.list() if one.state != DeploymentState.DRAINING]
        said = await store.reports(one.id for one in found)
        return [one.name for one in found if not said[one.id]]
    finally:
        await client.aclose()


def main() -> int:
    """Says on standard error what is wrong."""
    try:
        alone = asyncio.run(left_alone(Settings()))
    except (RedisError, OSError) as error:
        print(f"Redis: {type(error).__name__}", file=sys.stderr)  # noqa: T201
        return 1
    if alone:
        print(f"no agent runs {', '.join(alone)}", file=sys.stderr)  # noqa: T201
    return 1 if alone else 0


if __name__ == "__main__":
    sys.exit(main())
