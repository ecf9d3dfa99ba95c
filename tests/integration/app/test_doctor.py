"""What `hemostat doctor` says of a Redis of one's own."""

from pathlib import Path

import redis

from app.cli.doctor import _redis
from app.settings import Settings
from tests.integration.conftest import RedisServer


def test_a_redis_that_keeps_what_it_accepts_is_sound(redis_server: RedisServer) -> None:
    settings = redis_server.settings.model_copy(update={"redis_url": redis_server.url})
    assert [(finding.name, finding.ok) for finding in _redis(settings)] == [("Redis", True), ("Redis's memory", True)]


def test_one_that_may_lose_accepted_jobs_is_told_with_what_to_set(redis_server: RedisServer) -> None:
    settings = redis_server.settings.model_copy(update={"redis_url": redis_server.url})
    with redis.Redis.from_url(redis_server.url) as client:
        client.config_set("maxmemory", "0")
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert _redis(settings)[1].ok, "without a limit it drops nothing"
        client.config_set("maxmemory", "100mb")
        client.config_set("appendonly", "no")
        try:
            answers, keeps = _redis(settings)
        finally:
            client.config_set("appendonly", "yes")
            client.config_set("maxmemory", "0")
            client.config_set("maxmemory-policy", "noeviction")
    assert answers.ok
    assert (keeps.ok, keeps.needed) == (False, False)
    assert "append-only file is off" in keeps.found
    assert "allkeys-lru" in keeps.found
    assert "set appendonly yes" in keeps.remedy
    assert "set maxmemory-policy noeviction" in keeps.remedy


def test_one_whose_user_may_not_ask_is_said_to_answer(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.execute_command("ACL", "SETUSER", "shy", "on", ">word", "+ping")
        url = redis_server.url.replace("unix://", "unix://shy:word@")
        try:
            (found,) = _redis(redis_server.settings.model_copy(update={"redis_url": url}))
        finally:
            client.execute_command("ACL", "DELUSER", "shy")
    assert (found.ok, found.found) == (True, "HEMOSTAT_REDIS_URL answers")


def test_one_that_does_not_answer_is_missing_and_its_password_is_not_shown(tmp_path: Path) -> None:
    for url in (f"unix://user:secret@{tmp_path}/none.sock", "redis://:secret@127.0.0.1:1/0", "http://:secret@nowhere"):
        (found,) = _redis(Settings(home=tmp_path, redis_url=url))
        assert (found.ok, found.needed) == (False, True)
        assert "secret" not in found.found + found.remedy
        assert "HEMOSTAT_REDIS_URL" in found.remedy
