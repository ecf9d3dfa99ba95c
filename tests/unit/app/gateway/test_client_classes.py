"""What the official client makes of answers that vLLM does not give on demand."""

import asyncio
from contextlib import asynccontextmanager

import openai
import pytest
from starlette.responses import JSONResponse

from tests.unit.app.gateway.peers import WHOLE, Peer, calling, of, serving, whole

FULL = whole({"error": {"message": "full", "code": 503}}, 503)


@asynccontextmanager
async def client_of(tmp_path, *peers, retries=0, **settings):
    async with (
        serving(*peers),
        calling(tmp_path, of(*peers), **settings) as http,
        openai.AsyncOpenAI(
            base_url="http://localhost/v1", api_key="k", max_retries=retries, http_client=http
        ) as client,
    ):
        yield client


async def test_it_comes_again_when_it_was_told_to_and_is_answered_then(tmp_path):
    peer = Peer([FULL, FULL, whole(WHOLE)])  # the gateway tries the only replica twice
    async with client_of(tmp_path, peer, retries=1) as client:
        answer = await client.completions.create(model="m", prompt="x")
    assert answer.choices[0].text == "a"
    assert len(peer.asked) == 3


async def test_it_does_not_come_again_for_what_would_fail_again(tmp_path):
    peer = Peer([whole({"error": {"message": "boom", "code": 500}}, 500)])
    async with client_of(tmp_path, peer, retries=2) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.completions.create(model="m", prompt="x")
    assert caught.value.code == "engine_failed"
    assert len(peer.asked) == 1


async def test_a_full_queue_is_its_rate_limit_error(tmp_path):
    release, asked = asyncio.Event(), asyncio.Event()

    async def slow(_):
        asked.set()
        await release.wait()
        return JSONResponse(WHOLE)

    async with client_of(tmp_path, Peer([slow]), gateway_max_in_flight=1, gateway_max_queued=0) as client:
        first = asyncio.create_task(client.completions.create(model="m", prompt="x"))
        await asked.wait()
        with pytest.raises(openai.RateLimitError) as caught:
            await client.completions.create(model="m", prompt="x")
        assert caught.value.code == "rate_limited"
        assert int(caught.value.response.headers["retry-after"]) >= 1
        release.set()
        assert (await first).choices


async def test_what_vllm_cannot_process_is_its_unprocessable_entity_error(tmp_path):
    peer = Peer([whole({"error": {"message": "no such grammar", "param": "structured_outputs", "code": 422}}, 422)])
    async with client_of(tmp_path, peer) as client:
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            await client.completions.create(model="m", prompt="x")
    assert caught.value.param == "structured_outputs"
