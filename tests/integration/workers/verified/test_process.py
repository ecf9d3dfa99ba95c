"""The real process: `python -m workers.verify` over Redis, a recipe and two tiny engines, and what becomes of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.contracts.deployment import DeploymentRequest, DeploymentState, Replica
from app.models.registry import register
from app.settings import Settings
from tests.integration.conftest import RedisServer
from tests.support import hostile, verifying
from tests.support.tools import tool
from tests.support.verifying import PATIENCE_S
from tests.support.worker import gone, wait_for

Tiny = Callable[..., Path]
LENGTH = 160
RECIPE = [{"type": "quantize.rtn", "bits": 2, "group_size": 32}]


@dataclass
class Running:
    """A verify process that is ready."""

    settings: Settings
    redis: RedisServer
    process: subprocess.Popen[bytes]
    log: Path
    replica: Replica
    said: list[tuple[DeploymentState, str]] = field(default_factory=list)

    def ask(self, **body: Any) -> httpx.Response:
        return httpx.post(f"{self.replica.url}/v1/verified", json={"prompt": [5, 6, 7]} | body, timeout=PATIENCE_S)

    def lines(self, **body: Any) -> list[dict[str, Any]]:
        answer = self.ask(**body)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/x-ndjson"
        return [json.loads(line) for line in answer.text.splitlines()]

    def metric(self, name: str) -> float:
        text = httpx.get(f"{self.replica.url}/metrics", timeout=30).text
        return next(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        )


@pytest.fixture(scope="module")
def running(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Started while Redis is away: it has to wait for it."""
    home = tmp_path_factory.mktemp("verify") / "home"
    redis = RedisServer(home)
    redis.start()
    settings = redis.settings
    register(settings.models_file, "tiny", tiny("llama"))
    request = DeploymentRequest.model_validate(
        {
            "name": "demo",
            "model": {"model": "tiny", "recipe": RECIPE},
            "reference": {"model": "tiny"},
            "max_model_len": LENGTH,
            "verify": True,
        }
    )
    asyncio.run(verifying.call(settings, lambda store: store.create(request)))
    redis.stop()
    log = home / "verify.log"
    process = verifying.start(settings, "demo", log)
    said: list[tuple[DeploymentState, str]] = []

    def ready(replica: Replica) -> bool:
        said.append((replica.state, replica.reason))
        return replica.state is DeploymentState.READY

    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(4)  # neither gone nor registered: nobody could have told it what to do
        redis.start()
        replica = asyncio.run(verifying.until(settings, "demo", ready, process, log))
        yield Running(settings, redis, process, log, replica, said)
    finally:
        verifying.end(process)
        redis.stop()


@pytest.fixture(scope="module")
def endless(running: Running) -> dict[str, Any]:
    """A request whose greedy answer fills the context: it takes dozens of rounds, however fast the machine is."""
    for first in range(2, 60):
        asked = {"prompt": [first, 6], "max_tokens": LENGTH - 2, "temperature": 0.0}
        if running.lines(**asked)[-1]["finish_reason"] == "length":
            return asked
    raise AssertionError("every greedy answer ends by itself")


def test_it_says_what_it_does_until_it_is_ready_and_then_what_it_measured(running: Running) -> None:
    states = [state for state, _ in running.said]
    assert states == sorted(states, key=[DeploymentState.STARTING, DeploymentState.READY].index)
    assert states[0] is DeploymentState.STARTING
    assert "self-test passed: chi-square p = " in running.replica.reason
    assert "over 500 draws of a token" in running.replica.reason
    assert f"prompt and answer together at most {LENGTH} tokens" in running.replica.reason
    folder = next((running.settings.home / "deployments").glob("*/selftest.json")).parent
    kept = json.loads((folder / "selftest.json").read_text())
    assert kept["passed"]
    assert kept["reason"] in running.replica.reason
    assert f"power {kept['power']:.3g}" in kept["reason"]
    assert [file.name for file in folder.glob("selftest*")] == ["selftest.json"]


def test_it_streams_blocks_and_counts_them(running: Running) -> None:
    before = running.metric("hemostat_verify_requests_total")
    lines = running.lines(max_tokens=40, seed=1)
    *blocks, last = lines
    tokens = [token for block in blocks for token in block["token_ids"]]
    assert last["finish_reason"] == "length" or len(tokens) < 40
    assert last["usage"]["completion_tokens"] == len(tokens) + (last["finish_reason"] == "stop")
    assert last["tokens_per_reference_pass"] == pytest.approx(last["usage"]["completion_tokens"] / len(blocks), rel=0.2)
    assert 0 < last["acceptance_rate"] < 1
    assert running.metric("hemostat_verify_requests_total") == before + 1
    assert 0 < running.metric("hemostat_verify_acceptance_ratio") < 1
    assert running.metric("hemostat_verify_tokens_per_reference_pass") >= 1


def test_promtool_has_nothing_to_say(running: Running) -> None:
    text = httpx.get(running.replica.metrics_urls[0], timeout=30).content
    done = subprocess.run([tool("promtool"), "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"prompt": [5] * LENGTH, "max_tokens": 1}, f"allows {LENGTH} together"),
        ({"prompt": [5] * LENGTH, "max_tokens": 8, "fewer": True}, f"allows {LENGTH} together"),
        ({"max_tokens": LENGTH}, f"allows {LENGTH} together"),
        ({"max_tokens": 4, "prompt": [100_000]}, "not among the model's"),
        ({"max_tokens": 4, "prompt": []}, "prompt: List should have at least 1 item"),
        ({"max_tokens": 0}, "max_tokens: "),
        ({"max_tokens": 4, "logprobs": 3}, "logprobs: Extra inputs"),
        ({"max_tokens": 4, "temperature": "hot"}, "temperature: "),
    ],
)
def test_what_cannot_be_verified_is_400_and_says_why(running: Running, body: dict[str, Any], told: str) -> None:
    answer = running.ask(**body)
    assert answer.status_code == 400
    assert told in answer.json()["detail"]
    assert (answer.json().get("code") == "context_exceeded") == ("together" in told)


def test_a_head_without_end_is_refused(running: Running) -> None:
    hostile.endless_head(running.replica.url)


def test_the_context_is_used_to_its_last_token(running: Running) -> None:
    for prompt, most in (([5] * (LENGTH - 1), 1), ([5] * (LENGTH - 3), 3), ([5] * (LENGTH - 9), 9)):
        last = running.lines(prompt=prompt, max_tokens=most, seed=2)[-1]
        assert last["finish_reason"] in {"stop", "length"}
        assert 1 <= last["usage"]["completion_tokens"] <= most
    shortened = running.lines(prompt=[5] * (LENGTH - 2), max_tokens=100, fewer=True, seed=2)[-1]
    assert 1 <= shortened["usage"]["completion_tokens"] <= 2


def test_an_answer_that_nobody_waits_for_is_dropped(running: Running, endless: dict[str, Any]) -> None:
    """As many as may run at once are left by their clients; a request behind them is answered all the same."""
    finished = running.metric("hemostat_verify_requests_total")

    async def leave() -> None:
        async with (
            httpx.AsyncClient(timeout=PATIENCE_S) as client,
            client.stream("POST", f"{running.replica.url}/v1/verified", json=endless) as answer,
        ):
            async for _ in answer.aiter_lines():
                return

    async def all_leave() -> None:
        await asyncio.gather(*(leave() for _ in range(8)))

    asyncio.run(all_leave())
    assert running.lines(max_tokens=2)[-1]["finish_reason"] in {"length", "stop"}
    # Now and then one draws the end of its text before its client has left; nine would be all of them.
    assert running.metric("hemostat_verify_requests_total") <= finished + 5, "those that left did not run to their end"


def test_it_goes_on_while_redis_is_away_and_is_there_again_with_it(running: Running) -> None:
    running.redis.stop()
    try:
        assert running.lines(max_tokens=3)[-1]["finish_reason"] in {"length", "stop"}
    finally:
        running.redis.start()
    found = asyncio.run(
        verifying.until(
            running.settings, "demo", lambda one: one.state is DeploymentState.READY, running.process, running.log
        )
    )
    assert found.id == running.replica.id


def test_sigterm_ends_it_within_seconds_and_tells_whoever_waits(running: Running, endless: dict[str, Any]) -> None:
    """The last test of the module. A stream is open, which must not hold it up."""
    family = [running.process.pid, *(one.pid for one in psutil.Process(running.process.pid).children(recursive=True))]
    with httpx.stream("POST", f"{running.replica.url}/v1/verified", json=endless, timeout=PATIENCE_S) as answer:
        lines = answer.iter_lines()
        json.loads(next(lines))
        running.process.send_signal(signal.SIGTERM)
        rest: list[str] = []
        with contextlib.suppress(httpx.RemoteProtocolError):  # cut off in the middle
            rest += lines
        ended = not rest or "error" in json.loads(rest[-1]) or "finish_reason" in json.loads(rest[-1])
    assert ended
    assert running.process.wait(90) == 0
    wait_for(lambda: all(gone(pid) for pid in family), what="end of its processes")
    left = asyncio.run(verifying.call(running.settings, lambda store: store.get("demo")))
    assert left.running == ()
    assert "Traceback" not in running.log.read_text()
