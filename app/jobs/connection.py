"""Where Redis is, and how it is talked to.

The client's timeouts are ours. With redis-py's defaults (ten silent retries) a blocking read hangs for a minute, and a
stopped server means seconds of silence instead of a 503.
"""

import hashlib
import os
from pathlib import Path
from typing import Final
from urllib.parse import quote

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from app.settings import Settings

SOCKET_TIMEOUT_S: Final = 5.0  # longer than any blocking read of ours (2 s)
UNIX_PATH_LIMIT: Final = 107  # bytes of sockaddr_un.sun_path on Linux, less the closing NUL
MAX_CONNECTIONS: Final = 1024  # one for each open event stream, and then some


def embedded_socket(settings: Settings) -> Path:
    """Path of the embedded Valkey's socket: below `home`, or in a short folder where that would not fit a sockaddr_un.

    A pure function of `home` and the user, so that every process that shares a home finds the same socket.
    """
    home = settings.home.expanduser().resolve()
    inside = home / "valkey" / "valkey.sock"
    if len(os.fsencode(inside)) <= UNIX_PATH_LIMIT:
        return inside
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    # Not $TMPDIR or $XDG_RUNTIME_DIR: they may differ between the processes that must agree. `embedded` makes the
    # folder with mode 0700 and refuses one that somebody else owns.
    return Path("/tmp") / f"hemostat-{os.getuid()}-{digest}" / "valkey.sock"  # noqa: S108


def redis_url(settings: Settings) -> str:
    """URL of the server in force: the configured one, else the embedded Valkey's socket."""
    if settings.redis_url is not None:
        return settings.redis_url
    return f"unix://{quote(str(embedded_socket(settings)))}"


def connect(settings: Settings, *, retries: int = 2) -> Redis:
    """A client that returns str and gives up quickly. It connects on first use.

    A command is sent again at most `retries` times when its connection broke, also when only its reply was lost: what
    is sent must bear being run twice. A server that does not answer at all is not asked again.
    """
    client: Redis = Redis.from_url(
        redis_url(settings),
        decode_responses=True,
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=2.0,
        max_connections=MAX_CONNECTIONS,
        retry=Retry(ExponentialBackoff(cap=0.2, base=0.02), retries, supported_errors=(RedisConnectionError,)),
    )
    return client
