"""Streams that do not go as hoped: replicas that die, clients that leave or read slowly, queues that are full."""

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.integration.app.gateway.conftest import QUIET_KEY, ROOT, VERSION, Service
from tests.support.ports import free_port

LONG: dict[str, Any] = {"prompt": "The quick", "max_tokens": 3500, "stream": True, "ignore_eos": True}


async def until(condition: object, seconds: float = 60, what: str = "it never happened") -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.1)


@contextlib.contextmanager
def relaying(service: Service, *more: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    port = free_port()
    target = service.vllm_url.rpartition(":")[2]
    process = subprocess.Popen([sys.executable, "-m", "tests.support.relay", str(port), target, *more], cwd=ROOT)
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            break
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def relay(service: Service) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A replica that can be stopped: a process between the gateway and vLLM."""
    with relaying(service) as made:
        yield made


@pytest.fixture
def halting(service: Service) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """One that falls silent in the middle of each stream, and goes on at SIGUSR1."""
    with relaying(service, "4096") as made:
        yield made


async def test_a_replica_killed_in_mid_stream_ends_it_with_an_error_and_the_next_request_works(
    service: Service, halting: tuple[subprocess.Popen[bytes], str]
) -> None:
    process, url = halting
    deployment = await service.deploy("killed", service.replica("a-dies", url))
    async with service.openai(max_retries=0) as client:
        stream = await client.completions.create(
            model="killed",
            extra_body={"ignore_eos": True},
            **{name: value for name, value in LONG.items() if name != "ignore_eos"},
        )
        seen = 0
        with pytest.raises(openai.APIError) as caught:
            async for _ in stream:
                seen += 1
                if seen == 3:
                    process.kill()
                    process.wait()
        assert seen >= 3
        assert caught.value.code == "replica_unavailable"
        async with service.store() as store:
            await store.register(deployment.id, service.replica("b-lives"))
        answer = await client.completions.create(model="killed", prompt="a", max_tokens=2)
        assert answer.usage.completion_tokens <= 2


async def test_a_client_that_leaves_stops_its_generation_and_pays_its_prompt(service: Service) -> None:
    await service.deploy("leaving")
    before, paid = service.generated(), service.metric("hemostat_owner_tokens_total", owner="app")
    asked = {"model": "leaving", **LONG, "prompt": "The quick " * 100}
    async with service.http() as http:
        prompt = (await http.post("/tokenize", json={"model": "leaving", "prompt": asked["prompt"]})).json()["count"]
    async with (
        service.http() as http,
        http.stream("POST", "/v1/completions", json=asked) as answer,
    ):
        async for line in answer.aiter_lines():
            if line.startswith("data:"):
                break
    await until(
        lambda: service.metric("hemostat_gateway_aborts_total", deployment="leaving", reason="client") == 1,
    )
    assert service.metric("hemostat_gateway_in_flight_requests", deployment="leaving") == 0
    assert 0 < await service.until_still(before) < LONG["max_tokens"]
    assert service.metric("hemostat_owner_tokens_total", owner="app") - paid > prompt > 100


async def test_a_full_queue_is_429_and_answers_later(
    service: Service, relay: tuple[subprocess.Popen[bytes], str]
) -> None:
    process, url = relay
    await service.deploy("busy", service.replica("a-halts", url))  # 8 at the replica, 2 wait
    async with service.http() as http:

        async def one() -> httpx.Response:
            return await http.post("/v1/completions", json={"model": "busy", "prompt": "a", "max_tokens": 2})

        assert (await one()).status_code == 200
        process.send_signal(signal.SIGSTOP)
        under_way = [asyncio.create_task(one()) for _ in range(8)]
        await until(lambda: service.metric("hemostat_gateway_in_flight_requests", deployment="busy") == 8)
        waiting = [asyncio.create_task(one()) for _ in range(2)]
        await until(lambda: service.metric("hemostat_gateway_queued_requests", deployment="busy") == 2)
        refused = await one()
        assert refused.status_code == 429
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["x-should-retry"] == "true"
        under_way.pop().cancel()  # who leaves makes room
        await until(lambda: service.metric("hemostat_gateway_queued_requests", deployment="busy") == 1)
        process.send_signal(signal.SIGCONT)
        assert [answer.status_code for answer in await asyncio.gather(*under_way, *waiting)] == [200] * 9
    labels = {"deployment": "busy", "route": "/v1/completions", "status": "429"}
    assert service.metric("hemostat_gateway_requests_total", **labels) == 1


async def test_logits_that_are_not_finite_are_an_error_that_is_not_retried(service: Service) -> None:
    await service.deploy("broken")
    service.door.broken = True
    first = {"1": 100}  # the end of sequence, at once, and as a stop token: so ends what an engine of ours has to end
    asked: Any = {
        "model": "broken",
        "messages": [{"role": "user", "content": "a"}],
        "logit_bias": first,
        "max_tokens": 4,
    }
    asked |= {"extra_body": {"ignore_eos": True, "stop_token_ids": [1]}}
    async with service.openai() as client:
        with pytest.raises(openai.InternalServerError) as whole:
            await client.chat.completions.create(**asked)
        assert (whole.value.status_code, whole.value.code) == (500, "nonfinite_logits")
        assert whole.value.response.headers["x-should-retry"] == "false"
        assert len(service.door.asked) == 1, "the client did not try again"
        with pytest.raises(openai.APIError) as streamed:
            async for _ in await client.chat.completions.create(**asked, stream=True):
                pass
        assert streamed.value.code == "nonfinite_logits"
        service.door.broken = False
        answer = await client.chat.completions.create(**asked)
        assert answer.choices[0].finish_reason == "stop"


async def test_a_sampled_answer_is_the_same_and_its_token_ids_are_queued(service: Service) -> None:
    plain = await service.deploy("unwatched")
    watched = await service.deploy("watched", shadow_rate=1.0, shadow_tokens_per_second=1e6)
    sampled = service.metric("hemostat_shadow_sampled_total", deployment="watched")
    await service.until_idle()  # what is generated beside them would change how their products are rounded
    asked = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 12, "seed": 5, "temperature": 0.8}
    async with service.http() as http, service.store() as store:
        for stream in (False, True):
            texts = []
            for model in (plain.name, watched.name):
                answer = await http.post("/v1/chat/completions", json={"model": model, "stream": stream, **asked})
                assert answer.status_code == 200, answer.text
                lines = answer.text.split("\n\n") if stream else [answer.text]
                data = [json.loads(line.removeprefix("data: ")) for line in lines if "{" in line]
                for part in data:
                    for name in ("id", "created", "model"):
                        part.pop(name)
                    part.pop("usage", None)
                texts.append(data)
            assert texts[0] == texts[1]
        found: list[object] = []

        async def both() -> bool:
            found.extend(await store.pop_samples(watched.id, 8, 0.5))
            return len(found) >= 2

        deadline = time.monotonic() + 60
        while not await both():
            assert time.monotonic() < deadline
        whole, streamed = found
        assert whole.output == streamed.output
        assert whole.prompt == streamed.prompt
        prompt = (await http.post("/tokenize", json={"model": "watched", "messages": asked["messages"]})).json()
        assert list(whole.prompt) == prompt["tokens"]
        text = (await http.post("/detokenize", json={"model": "watched", "tokens": list(whole.output)})).json()
        assert len(whole.output) <= 12
        assert isinstance(text["prompt"], str)
        assert (whole.version, whole.temperature, whole.hidden) == ("identity", 0.8, f"hidden/{whole.id}.bin")
        assert whole.id != streamed.id
        assert await store.queue_depth(plain.id) == 0
    await until(lambda: service.metric("hemostat_shadow_sampled_total", deployment="watched") == sampled + 2)


async def test_who_opted_out_is_not_sampled(service: Service) -> None:
    deployment = await service.deploy("private", shadow_rate=1.0, shadow_tokens_per_second=1e6)
    asked = {"model": "private", "prompt": "a", "max_tokens": 3}
    async with service.openai(key=QUIET_KEY) as quiet, service.openai() as client, service.store() as store:
        await quiet.completions.create(**asked)
        await client.completions.create(**asked, extra_body={"hemostat": {"shadow": False}})
        await client.completions.create(**asked, n=2)
        await client.completions.create(**asked, extra_body={"hemostat": {"calibration": VERSION}})
        await until(lambda: service.metric("hemostat_shadow_sampled_total", deployment="private") >= 1)
        (sample,) = await store.pop_samples(deployment.id, 8)
        assert sample.version == VERSION
    assert service.metric("hemostat_shadow_sampled_total", deployment="private") == 1


async def test_a_silent_replica_is_waited_for(service: Service, halting: tuple[subprocess.Popen[bytes], str]) -> None:
    process, url = halting
    await service.deploy("silent", service.replica("a-halts", url))
    asked = {"model": "silent", **LONG, "max_tokens": 300}
    lines: list[str] = []
    async with service.http() as http, http.stream("POST", "/v1/completions", json=asked) as answer:
        async for line in answer.aiter_lines():
            lines.append(line)
            begun = next((at for at, line in enumerate(lines) if line.startswith("data: ")), len(lines))
            if ": keep-alive" in lines[begun:]:
                process.send_signal(signal.SIGUSR1)
    assert ": keep-alive" in lines[begun:]
    assert [line for line in lines if line][-1] == "data: [DONE]"
    assert all(line.startswith(("data: ", ": keep-alive")) for line in lines if line)


async def test_serving_goes_on_while_redis_is_away(service: Service) -> None:
    await service.deploy("steady", shadow_rate=1.0, shadow_tokens_per_second=1e6)
    async with service.openai(max_retries=0) as client:
        await client.completions.create(model="steady", prompt="a", max_tokens=2)
        service.redis.stop()
        try:
            for _ in range(3):
                began = time.monotonic()
                answer = await client.completions.create(model="steady", prompt="a", max_tokens=2)
                assert answer.choices
                await asyncio.sleep(max(0.0, 0.7 - (time.monotonic() - began)))
            await until(
                lambda: service.metric("hemostat_shadow_dropped_total", deployment="steady", reason="unavailable") >= 1
            )
            async with service.http() as http:
                state = await http.get("/readyz")
            assert (state.status_code, state.json()["checks"]["redis"]["ok"]) == (503, False)
        finally:
            service.redis.start()
        await client.completions.create(model="steady", prompt="a", max_tokens=2)
        await service.deploy("afterwards")
        await until_answers(client, "afterwards")


async def until_answers(client: openai.AsyncOpenAI, model: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            await client.completions.create(model=model, prompt="a", max_tokens=2)
        except openai.NotFoundError:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
        else:
            return
