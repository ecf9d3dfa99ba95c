"""Token ids leave the server's disk: looked for, byte by byte, in the files of a real Valkey."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from app.contracts.deployment import Deployment, ShadowSample
from app.deployments import keys, service
from app.deployments.store import DeploymentStore
from app.settings import Settings
from tests.integration.app.deployments.asking import until
from tests.integration.conftest import RedisServer

TOKEN = 918273645
EXPIRY_S = 0.3


def marked(name: str) -> ShadowSample:
    """A sample whose bytes are recognized."""
    return ShadowSample(id=name, prompt=(1, TOKEN), output=(3,), version="identity", at=0.0)


@pytest.fixture
def brief(client: Redis, lease_settings: Settings) -> DeploymentStore:
    """A store whose samples soon expire; `deployments` looks at the same record and waits ten minutes."""
    return DeploymentStore(client, lease_settings.model_copy(update={"shadow_expiry_s": EXPIRY_S}))


async def on_disk(client: Redis) -> bool:
    told = await cast(Any, client.config_get("dir", "appenddirname"))
    for file in (Path(told["dir"]) / told["appenddirname"]).iterdir():
        with contextlib.suppress(FileNotFoundError):  # a file that was just replaced
            if str(TOKEN).encode() in file.read_bytes():
                return True
    return False


async def off_disk(client: Redis) -> bool:
    return not await on_disk(client)


async def test_token_ids_that_expired_leave_the_disk(
    client: Redis, deployments: DeploymentStore, brief: DeploymentStore, made: Deployment
) -> None:
    assert await off_disk(client)
    assert not await brief.tidy_disk()  # nothing was queued
    await brief.push_sample(made.id, marked("expires"))

    async def expired() -> bool:
        return await brief.queue_depth(made.id) == 0

    await until(expired)
    assert await on_disk(client), "the server does not do it by itself"
    assert not await deployments.tidy_disk()  # whose expiry is not over
    await until(brief.tidy_disk)
    await until(lambda: off_disk(client))
    assert not await deployments.tidy_disk()  # once an expiry


async def test_token_ids_that_were_taken_out_leave_the_disk(
    client: Redis, brief: DeploymentStore, made: Deployment
) -> None:
    await brief.push_sample(made.id, marked("scored"))
    await brief.pop_samples(made.id, 1)
    assert await on_disk(client)
    await until(brief.tidy_disk)
    await until(lambda: off_disk(client))


async def test_without_new_samples_the_server_is_left_alone(
    client: Redis, brief: DeploymentStore, made: Deployment
) -> None:
    await brief.push_sample(made.id, marked("last"))
    await until(brief.tidy_disk)

    async def forgotten() -> bool:
        assert not await brief.tidy_disk()
        return not await client.exists(keys.DISK)

    await until(forgotten)
    await brief.push_sample(made.id, marked("next"))
    await until(brief.tidy_disk)


async def test_a_sample_that_was_queued_after_the_server_was_asked_is_asked_for_again(
    client: Redis, brief: DeploymentStore, made: Deployment
) -> None:
    await brief.push_sample(made.id, marked("one"))
    await until(brief.tidy_disk)
    await brief.push_sample(made.id, marked("two"))
    await until(brief.tidy_disk)
    await until(lambda: off_disk(client))


async def test_a_server_that_ended_while_it_wrote_is_asked_again(
    client: Redis, brief: DeploymentStore, made: Deployment
) -> None:
    await brief.push_sample(made.id, marked("one"))
    await until(brief.tidy_disk)
    await cast(Any, client.hset(keys.DISK, "asked", "the run before"))
    await until(brief.tidy_disk)


@pytest.fixture
async def limited(client: Redis, redis_server: RedisServer) -> AsyncIterator[Redis]:
    """Another user of the server, with what the ACL of an older installation allowed."""
    rules = "on >secret ~* &* +@all -@admin -@dangerous +info"
    await cast(Any, client).execute_command("ACL", "SETUSER", "limited", *rules.split())
    made = Redis(
        unix_socket_path=str(redis_server.socket), username="limited", password="secret", decode_responses=True
    )
    yield made
    await made.aclose()
    await cast(Any, client).execute_command("ACL", "DELUSER", "limited")


async def test_a_refusal_is_told_with_its_remedy_and_ends_with_it(
    client: Redis, limited: Redis, brief: DeploymentStore, made: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    store = DeploymentStore(limited, brief.settings)
    await store.push_sample(made.id, marked("stays"))

    async def told() -> bool:
        await service.tidy_disk(store)
        return "+bgrewriteaof" in caplog.text

    await until(told)
    assert await on_disk(client)
    await cast(Any, client).execute_command("ACL", "SETUSER", "limited", "+bgrewriteaof")

    async def gone() -> bool:
        await service.tidy_disk(store)
        return await off_disk(client)

    await until(gone)


async def test_a_user_that_may_not_ask_how_the_server_is_can_have_it_written(
    client: Redis, limited: Redis, brief: DeploymentStore, made: Deployment
) -> None:
    await cast(Any, client).execute_command("ACL", "SETUSER", "limited", "-info", "+bgrewriteaof")
    store = DeploymentStore(limited, brief.settings)
    await store.push_sample(made.id, marked("one"))
    await until(store.tidy_disk)
    await until(lambda: off_disk(client))
