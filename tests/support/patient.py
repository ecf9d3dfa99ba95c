"""A test's own connection to Redis, on a machine that other tests keep busy."""

from redis.asyncio import Redis

from app.jobs.connection import connect
from app.settings import Settings

PATIENCE_S = 60.0


def connect_patiently(settings: Settings) -> Redis:
    """The service's own client, but that it waits a minute where that one gives up after seconds: what a test asks for
    is not what the test is about."""
    client = connect(settings)
    client.connection_pool.connection_kwargs |= {"socket_timeout": PATIENCE_S, "socket_connect_timeout": PATIENCE_S}
    return client
