import os
from pathlib import Path

from redis.asyncio import Redis

from app.jobs.connection import SOCKET_TIMEOUT_S, UNIX_PATH_LIMIT, connect, embedded_socket, redis_url
from app.settings import Settings


def test_the_configured_url_wins():
    assert redis_url(Settings(redis_url="redis://example:6379/2")) == "redis://example:6379/2"


def test_the_embedded_socket_lies_below_home(tmp_path):
    home = Path("/tmp") / "h"
    assert embedded_socket(Settings(home=home)) == home / "valkey" / "valkey.sock"
    assert redis_url(Settings(home=home)) == "unix:///tmp/h/valkey/valkey.sock"


def test_a_home_too_long_for_a_socket_gets_a_short_one_that_everybody_finds(tmp_path):
    long = tmp_path / ("x" * 100)
    socket = embedded_socket(Settings(home=long))
    assert len(os.fsencode(socket)) <= UNIX_PATH_LIMIT
    assert long not in socket.parents
    assert socket == embedded_socket(Settings(home=tmp_path / "y" / ".." / ("x" * 100)))
    assert socket != embedded_socket(Settings(home=tmp_path / ("z" * 100)))
    assert str(os.getuid()) in str(socket)


def test_the_limit_is_counted_in_bytes(tmp_path):
    base = Path("/tmp")
    fits = base / ("a" * (UNIX_PATH_LIMIT - len("/tmp//valkey/valkey.sock")))
    assert embedded_socket(Settings(home=fits)) == fits / "valkey" / "valkey.sock"
    assert embedded_socket(Settings(home=Path(f"{fits}a"))).parent.name.startswith("hemostat-")
    umlauts = base / ("ä" * 60)
    assert umlauts not in embedded_socket(Settings(home=umlauts)).parents


async def test_a_path_with_spaces_and_signs_survives_the_url():
    home = Path("/tmp/a b?c#d%20é")
    client = connect(Settings(home=home))
    assert client.connection_pool.connection_kwargs["path"] == str(home / "valkey" / "valkey.sock")
    await client.aclose()


async def test_the_client_never_waits_less_than_a_blocking_read():
    settings = Settings()
    client: Redis = connect(settings)
    kwargs = client.connection_pool.connection_kwargs
    assert kwargs["socket_timeout"] == SOCKET_TIMEOUT_S > 2 * 2.0 >= 2 * settings.sse_poll_s
    await client.aclose()
