"""Token ids leave the server's disk: looked for, byte by byte, in the files of a real Valkey."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from redis.asyncio import Redis

from app.contracts.deployment import Deployment, ShadowSample
from app.deployments import keys, service
from app.deployments.store import DeploymentStore
from app.main import create_app
from app.settings import Settings
from tests.integration.app.deployments.asking import states, until
from tests.integration.app.deployments.conftest import replica, request
from tests.integration.conftest import RedisServer

TOKEN = 918273645
EXPIRY_S = 0.3


def marked(name: str) -> ShadowSample:
    """A sample whose bytes are recognized."""
    return ShadowSample(id=name, prompt=(1, TOKEN), output=(3,), version="identity", at=0.0)


@pytest.fixture(autouse=True)
async def readable(client: Redis) -> None:
    """What the server writes anew it writes as it is: in compressed text no token would be found."""
    await cast(Any, client.config_set("rdbcompression", "no"))


@pytest.fixture
def brief(client: Redis, lease_settings: Settings) -> DeploymentStore:
    """A store whose samples soon expire; `deployments` looks at the same record and waits ten minutes."""
    return DeploymentStore(client, lease_settings.model_copy(update={"shadow_expiry_s": EXPIRY_S}))


async def expired() -> None:
    """Samples are gone from memory and a rewrite would be due: that nothing comes of it has no sign to wait for."""
    await asyncio.sleep(2 * EXPIRY_S)


async def on_disk(client: Redis) -> bool:
    told = await cast(Any, client.config_get("dir"))
    return holds_token(Path(told["dir"]))


def holds_token(folder: Path) -> bool:
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a file that was just replaced
            if file.is_file() and str(TOKEN).encode() in file.read_bytes():
                return True
    return False


async def off_disk(client: Redis) -> bool:
    return not await on_disk(client)


async def times_asked(client: Redis) -> int:
    """How often the server began, or took note, to write its file anew because it was asked."""
    told = await cast(Any, client.info("commandstats"))
    return int(told.get("cmdstat_bgrewriteaof", {}).get("calls", 0))


async def idle(client: Redis) -> bool:
    told = await cast(Any, client.info("persistence"))
    return not (told["aof_rewrite_in_progress"] or told["aof_rewrite_scheduled"] or told["rdb_bgsave_in_progress"])


@pytest.fixture
async def stuck(client: Redis, redis_server: RedisServer) -> AsyncIterator[Callable[[], None]]:
    """Whatever the server begins to write stays half written, until it is killed by what this gives."""

    def kill() -> None:
        for writer in psutil.Process(redis_server.pid).children():
            writer.kill()

    await cast(Any, client.config_set("rdb-key-save-delay", 60_000_000))  # microseconds
    yield kill
    await cast(Any, client.config_set("rdb-key-save-delay", 0))
    kill()
    await until(lambda: idle(client))


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


async def test_a_deleted_deployment_leaves_the_disk(client: Redis, brief: DeploymentStore) -> None:
    made = await brief.create(request(metadata={"note": str(TOKEN)}))
    assert await on_disk(client)
    await brief.delete(made.id)
    await until(brief.tidy_disk)
    await until(lambda: off_disk(client))


async def test_without_new_samples_nothing_is_asked(client: Redis, brief: DeploymentStore, made: Deployment) -> None:
    await brief.push_sample(made.id, marked("last"))
    await until(brief.tidy_disk)

    async def forgotten() -> bool:
        assert not await brief.tidy_disk()
        return not await client.exists(keys.DISK)

    await until(forgotten)
    await brief.push_sample(made.id, marked("next"))
    await until(brief.tidy_disk)


async def test_a_server_that_ended_is_asked_again(client: Redis, brief: DeploymentStore, made: Deployment) -> None:
    await brief.push_sample(made.id, marked("one"))
    await until(brief.tidy_disk)
    await cast(Any, client.hset(keys.DISK, "asked", "the run before"))
    await until(brief.tidy_disk)


async def test_while_the_server_writes_it_does_not_count_as_written_and_what_failed_is_asked_for_again(
    client: Redis, brief: DeploymentStore, made: Deployment, stuck: Callable[[], None]
) -> None:
    await brief.push_sample(made.id, marked("one"))
    await until(brief.tidy_disk)
    await expired()
    assert not await brief.tidy_disk()
    assert await client.exists(keys.DISK)
    await cast(Any, client.config_set("rdb-key-save-delay", 0))
    stuck()
    await until(brief.tidy_disk)
    await until(lambda: off_disk(client))


async def test_a_server_without_an_append_only_file_is_not_asked_to_begin_one(
    client: Redis, brief: DeploymentStore, made: Deployment
) -> None:
    await cast(Any, client.config_set("appendonly", "no"))
    try:
        await brief.push_sample(made.id, marked("one"))
        asked = await times_asked(client)
        await expired()
        assert not await brief.tidy_disk()
        assert await times_asked(client) == asked
    finally:
        await cast(Any, client.config_set("appendonly", "yes"))
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
    await service.tidy_disk(store)
    assert caplog.text.count("+bgrewriteaof") == 1, "once an expiry"
    assert await on_disk(client)
    await cast(Any, client).execute_command("ACL", "SETUSER", "limited", "+bgrewriteaof")

    async def gone() -> bool:
        await service.tidy_disk(store)
        return await off_disk(client)

    await until(gone)


@pytest.fixture
def often(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of a service that looks often, and whose samples soon expire."""
    monkeypatch.setattr(service, "TIDY_S", 0.05)
    redis_server.settings.models_file.write_text("")
    return redis_server.settings.model_copy(update={"shadow_expiry_s": EXPIRY_S, "replica_lease_s": EXPIRY_S})


async def test_the_service_does_it_by_itself(client: Redis, often: Settings) -> None:
    app = create_app(often)
    async with app.router.lifespan_context(app):
        store = app.state.hemostat.deployments
        made = await store.create(request())
        await store.push_sample(made.id, marked("expires"))
        await until(lambda: off_disk(client))


async def test_no_lease_waits_for_it_and_it_ends_at_the_end(often: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    began = asyncio.Event()

    async def lasts(_: DeploymentStore) -> None:
        began.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(service, "tidy_disk", lasts)
    app = create_app(often)
    async with app.router.lifespan_context(app):
        store = app.state.hemostat.deployments
        made = await store.create(request())
        await began.wait()
        await store.register(made.id, replica())

        async def noticed() -> bool:
            return "failed" in await states(store, made) or "degraded" in await states(store, made)

        await until(noticed)
    assert "disk" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_until_the_sample_that_lives_longest_is_gone_it_is_asked_again(
    deployments: DeploymentStore, brief: DeploymentStore, made: Deployment
) -> None:
    await deployments.push_sample(made.id, marked("stays for ten minutes"))
    await brief.push_sample(made.id, marked("goes soon"))
    for _ in range(3):
        await until(brief.tidy_disk)


async def test_an_expired_sample_that_the_server_has_not_come_across_is_not_written(
    client: Redis, brief: DeploymentStore, made: Deployment
) -> None:
    # It looks at a few hundred keys a second.
    others = "for number = 1, 20000 do redis.call('SET', 'other:' .. number, '', 'EX', 3600) end"
    await cast(Any, client.eval(others, 0))
    await brief.push_sample(made.id, marked("expires"))
    await until(brief.tidy_disk)
    await until(lambda: off_disk(client))
