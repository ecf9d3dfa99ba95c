#!/usr/bin/env python3
"""For the health check of `hemostat serve`: ends with 0 when Redis answers and every deployment is held by an agent."""

import asyncio
import sys

from redis.exceptions import RedisError

from app.contracts.deployment import DeploymentState
from app.deployments import keys
from app.deployments.store import DeploymentStore
from app.jobs.connection import connect
from app.settings import Settings


async def left_alone(settings: Settings) -> list[str]:
    """Names of deployments whose agent has not been heard of for longer than its lease."""
    client = connect(settings)
    try:
        found = [one for one in await DeploymentStore(client, settings).list() if one.state != DeploymentState.DRAINING]
        said = await client.mget([keys.agent(one.id) for one in found]) if found else []
        return [one.name for one, text in zip(found, said, strict=True) if text is None]
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
        print(f"nobody tends {', '.join(alone)}", file=sys.stderr)  # noqa: T201
    return 1 if alone else 0


if __name__ == "__main__":
    sys.exit(main())
