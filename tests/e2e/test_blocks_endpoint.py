"""Corrections after each block from a calibrate job to a rollback: one service, real processes, a tiny model.

Fixtures of the module bring the deployment from one state to the next: plain, promoted, sent to, rolled back.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.support.endpoint import RECIPE, Endpoint
from tests.support.mixed import PLAIN, Traffic
from tests.support.worker import wait_for

Json = dict[str, Any]
MODELS = {"reference": {"model": "tiny"}}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    made = Endpoint(tmp_path_factory.mktemp("blocks"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@dataclass(frozen=True)
class Answer:
    """Drawn tokens with their log-probabilities, and the version that the header names."""

    tokens: list[str]
    logprobs: list[float]
    version: str


def ask(endpoint: Endpoint, calibration: str) -> Answer:
    body = {
        "model": "bot",
        "prompt": "the quick brown fox jumps over",
        "max_tokens": 24,
        "temperature": 0,
        "logprobs": 1,
        "hemostat": {"calibration": calibration, "shadow": False},
    }
    found = endpoint.http.post("/v1/completions", json=body)
    assert found.status_code == 200, found.text
    told = found.json()["choices"][0]["logprobs"]
    return Answer(told["tokens"], told["token_logprobs"], found.headers["x-hemostat-calibration"])


@pytest.fixture(scope="module")
def plain(endpoint: Endpoint) -> Answer:
    """What the replica answers that has no version yet."""
    asked = {
        "name": "bot",
        "model": {"model": "served", "recipe": RECIPE},
        "calibration": "frozen",
        "shadow_rate": 1.0,
        "shadow_tokens_per_second": 100_000,
    }
    made = endpoint.http.post("/v1/deployments", json=MODELS | asked)
    assert made.status_code == 201, made.text
    endpoint.until_serving()
    return ask(endpoint, "auto")


@pytest.fixture(scope="module")
def report(plain: Answer, endpoint: Endpoint) -> Json:
    asked = {
        "kind": "calibrate",
        "candidate": {"model": "served", "recipe": RECIPE},
        "calibrators": ["blocks"],
        "own_tokens": 0,
        "deployment": "bot",
    }
    job = endpoint.http.post("/v1/diagnosis/jobs", json=MODELS | asked)
    assert job.status_code == 202, job.text

    def ended() -> httpx.Response | None:
        record = endpoint.http.get(f"/v1/diagnosis/jobs/{job.json()['id']}").json()
        assert record["status"] != "failed", record
        return endpoint.http.get(record["report_url"]) if record["status"] == "succeeded" else None

    found = wait_for(ended, what="report", timeout_s=400)
    assert found is not None
    return dict(found.json())


@pytest.fixture(scope="module")
def version(report: Json, endpoint: Endpoint) -> str:
    found = str(report["profile"])
    if endpoint.get()["active_version"] != found:
        promoted = endpoint.http.post("/v1/deployments/bot/promote", json={"version": found})
        assert promoted.status_code == 200, promoted.text
    endpoint.until_serving(version=found)
    wait_for(lambda: ask(endpoint, "auto").version == found, what="an answer by the promoted version")
    return found


def test_the_job_proves_it(report: Json) -> None:
    assert report["test"]["passed"], report["test"]["reasons"]
    assert report["divergence"]["kl"]["mean"] < report["raw"]["divergence"]["kl"]["mean"]


def test_auto_is_corrected_and_off_is_the_plain_replica_bit_for_bit(
    plain: Answer, version: str, endpoint: Endpoint
) -> None:
    assert (plain.version, ask(endpoint, "off").version) == ("identity", "identity")
    assert ask(endpoint, "auto").logprobs != plain.logprobs
    assert ask(endpoint, version) == ask(endpoint, "auto")
    assert ask(endpoint, "off") == plain


def test_the_shadow_measures_the_corrected_stream(version: str, endpoint: Endpoint) -> None:
    async def send() -> None:
        traffic = Traffic(endpoint.url, "bot", version)
        try:
            await traffic.send(48, PLAIN)
        finally:
            await traffic.close()

    asyncio.run(send())

    def told(found: Json) -> Any:
        divergence = found["shadow"] and found["shadow"]["divergence"]
        return divergence and divergence["requests"] >= 40 and divergence["engine"]

    divergence = endpoint.until(told, "scores")["shadow"]["divergence"]
    assert divergence["calibrated"]["high"] < divergence["raw"]["low"]
    assert divergence["engine"]["mean"] < 0.2 * divergence["calibrated"]["mean"], "both engines correct alike"
    mean = 'hemostat_served_kl_mean_nats{deployment="bot",stage="%s"}'
    endpoint.prometheus.until(f"{mean % 'calibrated'} < on(deployment) {mean % 'raw'}")


def test_a_rollback_gives_the_plain_model_back(plain: Answer, version: str, endpoint: Endpoint) -> None:
    rolled = endpoint.http.post("/v1/deployments/bot/rollback", json={"reason": "by hand"})
    assert rolled.status_code == 200, rolled.text
    wait_for(lambda: ask(endpoint, "auto").version == "identity", what="an answer without correction")
    assert ask(endpoint, "auto") == plain
    assert ask(endpoint, version).version == version
