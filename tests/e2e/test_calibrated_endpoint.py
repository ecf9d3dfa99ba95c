"""The calibrated endpoint from a deployment to a silenced alarm: one service, real processes, in order.

Valkey, API, worker, agent, a replica of vLLM with our hooks, the shadow process and a Prometheus that finds all of them
by itself. The model is a tiny Llama with random weights, its candidate the same at 4 bits.
"""

import asyncio
import json
import logging
import math
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from safetensors.torch import load_file, save_file

from app.cli.client import Client
from deploy.grafana import board
from deploy.grafana.queries import Asked, queries
from tests.support.endpoint import CONTEXT, RECIPE, Endpoint
from tests.support.mixed import KINDS, PLAIN, Traffic
from tests.support.prometheus import alert_expression
from tests.support.worker import wait_for

logger = logging.getLogger(__name__)
VARIABLES = {"datasource": "prometheus", "deployment": ".+", "__rate_interval": "10s"}
QUERIES = list(queries(json.loads(board.FILE.read_text(encoding="utf-8")), VARIABLES))
ALARM = 'hemostat_drift_state{deployment="bot",state="alarm"} == 1'
Json = dict[str, Any]
PROFILE: dict[str, str] = {}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    made = Endpoint(tmp_path_factory.mktemp("endpoint"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def client(endpoint: Endpoint) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{endpoint.url}/v1", api_key="none", timeout=120, max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, **fields: Any) -> tuple[Any, str]:
    """One answer, and the calibration that its header tells."""
    asked: dict[str, Any] = {
        "model": "bot",
        "messages": [{"role": "user", "content": "How much is lost?"}],
        "max_tokens": 24,
    }
    raw = client.chat.completions.with_raw_response.create(**(asked | fields))
    return raw.parse(), raw.headers["x-hemostat-calibration"]


def send(endpoint: Endpoint, count: int, version: str, *, mixed: bool = False) -> Traffic:
    async def run() -> Traffic:
        traffic = Traffic(endpoint.url, "bot", version)
        try:
            await traffic.send(count, KINDS if mixed else PLAIN)
        finally:
            await traffic.close()
        return traffic

    return asyncio.run(run())


def scored(endpoint: Endpoint) -> float:
    return endpoint.prometheus.value('hemostat_shadow_scored_requests_total{deployment="bot"}')


def drained(endpoint: Endpoint, at_least: float) -> None:
    """Until so many requests were scored, and Prometheus knows."""
    wait_for(lambda: scored(endpoint) >= at_least, what=f"{at_least} scored requests", timeout_s=400)


def test_a_deployment_is_served_at_once_with_identity(endpoint: Endpoint, client: openai.OpenAI) -> None:
    release = endpoint.hold_worker()  # on a quick machine the fit may be over before the replica is up
    try:
        request = {
            "name": "bot",
            "model": {"model": "served", "recipe": RECIPE},
            "reference": {"model": "tiny"},
            "calibration": "auto",
            "drift_threshold": 0.06,  # between what it bleeds at 4 bits, 0.04 to 0.05 nats, and what is worse
            "shadow_rate": 1.0,
            "shadow_tokens_per_second": 100_000,
        }
        made = endpoint.http.post("/v1/deployments", json=request)
        assert made.status_code == 201, made.text
        assert made.json()["active_version"] == "identity"
        endpoint.until_serving()
        answer, calibration = ask(client)
        assert calibration == "identity"
        assert answer.system_fingerprint.startswith("hemostat-served-")
        assert answer.system_fingerprint.endswith("-identity")
        assert endpoint.get()["fit_job"]
    finally:
        release()


def test_what_is_fitted_in_the_background_is_proven_and_promoted(endpoint: Endpoint, client: openai.OpenAI) -> None:
    job = endpoint.get()["fit_job"]

    def promoted(found: Json) -> bool:
        assert not found["fit_reason"], found["fit_reason"]
        return bool(found["active_version"] != "identity")

    version = PROFILE["version"] = endpoint.until(promoted, "a promotion")["active_version"]
    with Client(endpoint.url) as watching:  # from its beginning, as whoever watched it
        phases = {data["progress"]["phase"] for name, data in watching.watch(job) if name == "progress"}
    assert {"reference", "candidate", "fit", "test"} <= phases
    told = [one["type"] for one in endpoint.events()]
    assert told.index("fit_started") < told.index("promoted")
    report = endpoint.http.get(f"/v1/diagnosis/jobs/{job}/report").json()
    assert report["profile"] == version
    assert report["served"]
    assert report["divergence"]["kl"]["mean"] < 0.9 * report["raw"]["divergence"]["kl"]["mean"]
    endpoint.until_serving(version=version)

    def answered() -> str:
        answer, calibration = ask(client)
        assert answer.system_fingerprint.endswith(f"-{calibration}")
        return calibration

    wait_for(lambda: answered() == version, what="an answer by the promoted version")


def test_two_hundred_mixed_requests_are_answered(endpoint: Endpoint) -> None:
    drained(endpoint, 1)
    before = scored(endpoint)
    traffic = send(endpoint, 200, PROFILE["version"], mixed=True)
    assert sum(traffic.calibrations.values()) == 200
    assert traffic.calibrations["identity"] > 10
    # In another batch the last bit of a product may differ, and with it now and then a token.
    assert traffic.repeated[True] > traffic.repeated[False]
    # Requests for several sequences are not scored, everything else is; seeded ones were sent twice.
    singles = sum(kind.__name__ != "several" for kind in (KINDS * 14)[:200])
    twice = sum(kind.__name__ == "seeded" for kind in (KINDS * 14)[:200])
    drained(endpoint, before + singles + twice)
    logger.info("%d generated tokens, repeated: %s", traffic.tokens, dict(traffic.repeated))
    dropped = endpoint.prometheus.now('sum(hemostat_shadow_dropped_total{deployment="bot"}) > 0')
    assert dropped == []


def test_shadow_scores_appear_and_prometheus_holds_them(endpoint: Endpoint) -> None:
    def told(found: Json) -> Any:
        return found["shadow"] and found["shadow"]["divergence"] and found["shadow"]["drift"] != "learning"

    shadow = endpoint.until(told, "shadow scores")["shadow"]
    assert shadow["drift"] == "ok", shadow
    divergence = shadow["divergence"]
    assert divergence["requests"] >= 100
    assert divergence["calibrated"]["high"] < divergence["raw"]["low"], "it helps on served traffic"
    assert divergence["saved"]["low"] > 0
    assert divergence["engine"] is not None
    assert divergence["engine"]["mean"] < 0.2 * divergence["raw"]["mean"], "the engines agree"
    for stage in ("raw", "calibrated", "engine"):
        series = f'hemostat_served_kl_mean_nats{{deployment="bot",stage="{stage}"}}'
        mean = divergence[stage]["mean"]
        endpoint.prometheus.until(f"abs({series} - {mean}) <= 1e-6 * {mean}")
    missing = endpoint.prometheus.value('hemostat_shadow_engine_term_missing_total{deployment="bot"}')
    assert missing <= 0.05 * scored(endpoint)
    logger.info("served: %s", json.dumps(shadow))


def test_bad_requests_are_refused_each_with_its_own_error(endpoint: Endpoint, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        ask(client, model="bott")
    assert "bot" in unknown.value.message
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(model="bot", prompt=[5] * 10_000, max_tokens=4)
    assert long.value.code == "context_exceeded"
    with pytest.raises(openai.BadRequestError) as words:
        ask(client, messages=[{"role": "user", "content": "word " * 10 * CONTEXT}])
    assert words.value.code == "context_exceeded"
    with pytest.raises(openai.BadRequestError):
        ask(client, extra_body={"hemostat": {"calibration": "cal-" + "0" * 16}})
    assert ask(client)[1] == PROFILE["version"]


def copied(endpoint: Endpoint, number: int) -> tuple[Path, Json]:
    """A copy of the served profile under another version, and its description."""
    folder = endpoint.home / "profiles" / f"cal-{number:016x}"
    shutil.copytree(endpoint.home / "profiles" / PROFILE["version"], folder)
    described = json.loads((folder / "profile.json").read_text())
    described["version"] = folder.name
    (folder / "profile.json").write_text(json.dumps(described))
    return folder, described


def test_a_profile_of_another_model_or_a_corrupt_one_is_not_served(endpoint: Endpoint, client: openai.OpenAI) -> None:
    foreign, described = copied(endpoint, 1)
    described["fit"]["candidate"]["model"] = "another"
    (foreign / "profile.json").write_text(json.dumps(described))
    refused = endpoint.http.post("/v1/deployments/bot/promote", json={"version": foreign.name})
    assert refused.json()["code"] == "profile_mismatch", refused.text

    broken, _ = copied(endpoint, 2)
    tensors = load_file(broken / "tensors.safetensors")
    save_file({name: tensor * math.nan for name, tensor in tensors.items()}, broken / "tensors.safetensors")
    promoted = endpoint.http.post("/v1/deployments/bot/promote", json={"version": broken.name})
    if promoted.status_code == 200:  # its description says nothing wrong; the replica sees
        endpoint.until(lambda found: found["state"] == "degraded" and broken.name in found["reason"], "refusal")
        assert ask(client)[1] == PROFILE["version"], "the version before serves on"
        assert endpoint.http.post("/v1/deployments/bot/rollback", json={}).status_code == 200
    endpoint.until(lambda found: found["state"] == "ready", "recovery")
    assert endpoint.get()["active_version"] == PROFILE["version"]
    for folder in (foreign, broken):
        shutil.rmtree(folder)


def test_serving_goes_on_while_redis_is_away(endpoint: Endpoint, client: openai.OpenAI) -> None:
    dropped = 'hemostat_shadow_dropped_total{deployment="bot",reason="unavailable"}'
    endpoint.redis.kill()
    try:
        for _ in range(3):
            assert ask(client)[1] == PROFILE["version"]
        assert endpoint.http.get("/v1/deployments").status_code == 503
        ready = endpoint.http.get("/readyz")
        assert ready.status_code == 503
        assert "edis" in ready.text
        endpoint.prometheus.until("hemostat_redis_up == 0")
        endpoint.prometheus.until(f"{dropped} >= 3")
    finally:
        endpoint.redis.start()
    endpoint.prometheus.until("hemostat_redis_up == 1")
    wait_for(lambda: endpoint.http.get("/v1/deployments/bot").status_code == 200, what="recovery")
    before = scored(endpoint)
    send(endpoint, 4, endpoint.get()["active_version"])
    drained(endpoint, before + 4)


def test_weights_that_are_not_the_served_ones_show_in_the_engine_term(endpoint: Endpoint) -> None:
    """The shadow process scores with the worse checkpoint at once, while the replica still has the good one."""
    engine = 'hemostat_served_kl_mean_nats{deployment="bot",stage="engine"}'
    agreed = endpoint.prometheus.value(engine)
    last = endpoint.events()[-1]["id"]
    endpoint.put_worse()

    def noticed() -> bool:
        return any("other weights" in one["reason"] for one in endpoint.events() if one["id"] > last)

    wait_for(noticed, what="new weights", timeout_s=400)
    send(endpoint, 6, PROFILE["version"])  # too few for an alarm
    endpoint.prometheus.until(f"{engine} > 0.05 + {agreed}")


def test_a_replica_killed_in_mid_stream_ends_the_stream_with_an_error(
    endpoint: Endpoint, client: openai.OpenAI
) -> None:
    """It comes back with the worse checkpoint."""
    (before,) = [one for one in endpoint.get()["running"] if one["role"] == "serve"]
    stream = client.completions.create(
        model="bot", prompt="The quick", max_tokens=1000, logprobs=20, stream=True, extra_body={"ignore_eos": True}
    )
    events = iter(stream)
    for _ in range(3):
        next(events)
    os.kill(before["pid"], signal.SIGKILL)
    with pytest.raises(openai.APIError) as lost:
        for _ in events:
            pass
    assert lost.value.code == "replica_unavailable"
    endpoint.until_serving(not_pid=before["pid"])
    answer, _ = ask(client)
    assert answer.choices[0].message.content


def test_a_worse_checkpoint_raises_the_alarm(endpoint: Endpoint, client: openai.OpenAI) -> None:
    found = endpoint.until(lambda one: one["state"] == "degraded", "refusal of a profile for other weights")
    assert "another checkpoint" in found["reason"]
    assert ask(client)[1] == "identity", "its correction was fitted for other weights"
    before = scored(endpoint)
    for _ in range(20):
        send(endpoint, 12, "identity")
        if endpoint.get()["shadow"]["drift"] == "alarm":
            break
        time.sleep(0.5)
    raised = endpoint.wait_event("alarm")
    endpoint.prometheus.until(ALARM)
    endpoint.prometheus.until('hemostat_drift_alarms_total{deployment="bot"} >= 1')
    endpoint.prometheus.until(alert_expression("HemostatDriftAlarm"))
    endpoint.prometheus.until('ALERTS{alertname="HemostatDriftAlarm",deployment="bot"}')
    logger.info("the alarm after %d requests: %s", scored(endpoint) - before, json.dumps(raised))


def test_the_alarm_falls_silent_after_rollback_to_what_was_good(endpoint: Endpoint, client: openai.OpenAI) -> None:
    last = endpoint.events()[-1]["id"]
    (before,) = [one for one in endpoint.get()["running"] if one["role"] == "serve"]
    endpoint.put_good()
    endpoint.kill_replica()
    endpoint.until_serving(not_pid=before["pid"], version=PROFILE["version"])
    rolled = endpoint.http.post("/v1/deployments/bot/rollback", json={"to": "identity", "reason": "drifted"})
    assert rolled.status_code == 200, rolled.text
    endpoint.wait_event("rolled_back", after=last)
    endpoint.wait_event("cleared", after=last)
    endpoint.prometheus.until_silent(alert_expression("HemostatDriftAlarm"))
    before_scored = scored(endpoint)
    send(endpoint, 48, "identity")
    drained(endpoint, before_scored + 48)
    found = endpoint.until(lambda one: one["shadow"]["drift"] == "ok", "silence")
    assert found["shadow"]["alarms"] == 1
    endpoint.prometheus.until_silent(ALARM)
    logger.info("after the rollback: %s", json.dumps(found["shadow"]))


@pytest.mark.parametrize("asked", QUERIES, ids=lambda asked: asked.place)
def test_every_query_of_the_board_returns_data(endpoint: Endpoint, asked: Asked) -> None:
    assert "$" not in asked.expr
    wait_for(lambda: endpoint.prometheus.values(asked), what=asked.expr)
