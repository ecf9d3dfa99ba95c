"""The processes of the compose file, started with its commands and environment, find each other and are well."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisError
from redis.retry import Retry

from tests.integration.deploy.stack import ROOT, Stack

Json = dict[str, Any]


def until(condition: Callable[[], Any], what: str, timeout_s: float = 120) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.2)
    return found


@pytest.fixture
def prometheus(stack: Stack) -> Callable[..., Json]:
    def get(path: str, **parameters: str) -> Json:
        answer = httpx.get(f"{stack.url('9090')}/api/v1/{path}", params=parameters, timeout=60)
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["data"])

    return get


@pytest.mark.parametrize("name", ["redis", "api", "worker", "prometheus", "proxy"])
def test_the_services_own_health_check_passes(stack: Stack, name: str) -> None:
    until(lambda: stack.healthy(name), f"{name} is not healthy")  # as compose: it is asked again


def test_the_api_listens_beyond_loopback_and_lets_nobody_in_without_a_key(stack: Stack) -> None:
    assert stack.services["api"]["environment"]["HEMOSTAT_HOST"] == "0.0.0.0"
    url = f"{stack.url('8321')}/v1/diagnosis/jobs"
    assert httpx.get(url, timeout=60).status_code == 401
    assert httpx.get(url, headers={"authorization": f"Bearer {stack.secret('api_key')}"}, timeout=60).status_code == 200


def test_the_worker_is_known_to_the_api(stack: Stack) -> None:
    key = {"authorization": f"Bearer {stack.secret('api_key')}"}

    def known() -> bool:
        ready = httpx.get(f"{stack.url('8321')}/readyz", headers=key, timeout=60).json()
        return ready.get("status") == "ready" and len(ready["workers"]) == 1

    until(known, "the API does not know the one worker")


def test_the_command_of_the_page_reaches_the_service_from_the_apis_container(stack: Stack) -> None:
    page = (ROOT / "docs" / "compose.md").read_text()
    [line] = re.findall(
        r"^docker compose exec --env HEMOSTAT_API_KEY=\S+ \S+ api (hemostat compare .+)$", page, re.MULTILINE
    )
    done = stack.run("api", *line.split(), "--dry-run", HEMOSTAT_API_KEY=stack.secret("api_key"))
    assert done.returncode == 0, done.stderr
    assert re.search(r"documents +│ +\d+", done.stdout)


def test_a_job_reads_texts_of_the_mounted_folder(stack: Stack) -> None:
    documents = [{"id": f"d{number}", "text": "The fox is quick. " * 40} for number in range(4)]
    (stack.volume("texts") / "own.jsonl").write_text("".join(json.dumps(one) + "\n" for one in documents))
    job = {
        "kind": "compare",
        "reference": {"model": "smollm2-135m"},
        "candidate": {"model": "smollm2-135m", "recipe": [{"type": "quantize.rtn", "bits": 4}]},
        "text": {"source": "file", "path": "own.jsonl"},
        "dry_run": True,
    }
    key = {"authorization": f"Bearer {stack.secret('api_key')}"}
    answer = httpx.post(f"{stack.url('8321')}/v1/diagnosis/jobs", json=job, headers=key, timeout=60)
    assert answer.status_code == 200, answer.text
    job["text"] = {"source": "file", "path": "none.jsonl"}
    answer = httpx.post(f"{stack.url('8321')}/v1/diagnosis/jobs", json=job, headers=key, timeout=60)
    assert answer.json()["code"] == "text_not_found"


def test_prometheus_scrapes_them_with_its_key(stack: Stack, prometheus: Callable[..., Json]) -> None:
    def up() -> dict[str, str]:
        found = prometheus("query", query="up")["result"]
        return {one["metric"]["job"]: one["value"][1] for one in found}

    wanted = {"prometheus": "1", "hemostat-api": "1", "hemostat-worker": "1"}
    until(lambda: wanted.items() <= up().items(), f"{up()}\n{prometheus('targets')}")
    until(lambda: prometheus("query", query="hemostat_redis_up == 1")["result"], "Redis is not seen")


def test_prometheus_discovers_through_the_api(prometheus: Callable[..., Json]) -> None:
    # It asks every second. On a busy machine one answer may come late; with a wrong key none would ever come.
    failures = "increase(prometheus_sd_http_failures_total[10s]) == 0"
    until(lambda: len(prometheus("query", query=failures)["result"]) == 1, "discovery fails")


def test_every_rule_is_loaded_and_evaluated(prometheus: Callable[..., Json]) -> None:
    def healths() -> set[str]:
        groups = prometheus("rules")["groups"]
        return {rule["health"] for group in groups for rule in group["rules"]}

    until(lambda: healths() == {"ok"}, "a rule is not evaluated")


def test_redis_lets_in_the_service_and_nobody_else(stack: Stack) -> None:
    with Redis.from_url(stack.redis_url) as client:
        assert client.ping()
        assert client.bgrewriteaof()  # by which token ids leave the disk
        for forbidden in ("CONFIG GET dir", "FLUSHALL", "ACL LIST", "SHUTDOWN", "KEYS *"):
            with pytest.raises(NoPermissionError):
                client.execute_command(*forbidden.split())
    once = {"port": int(stack.ports["6379"]), "retry": Retry(NoBackoff(), 0)}
    for user, password in ((None, None), ("default", ""), ("hemostat", "wrong")):
        with Redis(**once, username=user, password=password) as client, pytest.raises(RedisError):
            client.ping()
    with Redis(**once, username="health", password="health") as client:
        assert client.ping()
        with pytest.raises(NoPermissionError):
            client.get("x")


def test_redis_keeps_an_append_only_file(stack: Stack) -> None:
    assert list(stack.volume("redis").glob("appendonlydir/*.aof*"))


def test_the_agent_comes_up_and_goes_when_told(stack: Stack) -> None:
    """No deployment is left by then: what it starts is tested where there are engines."""
    key = {"authorization": f"Bearer {stack.secret('api_key')}"}
    url = f"{stack.url('8321')}/v1/deployments"
    until(lambda: httpx.get(url, headers=key, timeout=60).json()["data"] == [], "a deployment is left")
    stack.start("serve")
    assert stack.services["serve"]["environment"]["HEMOSTAT_ADVERTISE_HOST"] == "serve"
    until(lambda: stack.healthy("serve"), "the agent is not healthy")
    # with nothing to tend it is healthy from the start
    until(lambda: "serving every deployment" in stack.log("serve"), "the agent does not come up")
    assert stack.end("serve") == 0
