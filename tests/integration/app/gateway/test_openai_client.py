"""The official Python client, unmodified, against the gateway."""

import asyncio
import json
import time

import openai
import pytest
from pydantic import BaseModel

from tests.integration.app.gateway.conftest import KEY, QUIET_KEY, VERSION, Service

MESSAGES = [{"role": "user", "content": "Say something."}]


@pytest.fixture
async def model(service: Service, request: pytest.FixtureRequest) -> str:
    name = "m" + str(abs(hash(request.node.nodeid)))[:12]
    await service.deploy(name)
    return name


async def test_models_are_the_deployments(service: Service, model: str) -> None:
    async with service.openai() as client:
        listed = {found.id: found async for found in client.models.list()}
        assert listed[model].owned_by == "hemostat"
        assert (await client.models.retrieve(model)).id == model


async def test_a_conversation_is_answered_and_says_what_answered_it(service: Service, model: str) -> None:
    async with service.openai() as client:
        raw = await client.chat.completions.with_raw_response.create(
            model=model, messages=MESSAGES, max_tokens=6, logprobs=True, top_logprobs=3, n=2, seed=7
        )
        answer = raw.parse()
        assert raw.headers["x-hemostat-calibration"] == "identity"
        assert answer.model == model
        assert answer.system_fingerprint == "hemostat-tiny-none-identity"
        assert len(answer.choices) == 2
        content = answer.choices[0].logprobs.content
        assert len(content) == 6
        assert all(len(token.top_logprobs) == 3 for token in content)
        assert answer.usage.completion_tokens == 12
        again = await client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=6, n=2, seed=7)
        assert [choice.message.content for choice in again.choices] == [
            choice.message.content for choice in answer.choices
        ]


async def test_owners_share_no_prefix_of_the_engine(service: Service, model: str) -> None:
    prompt = "a b c d " * 200  # some blocks of the cache

    async def reused(key: str) -> float:
        before = service.vllm("prefix_cache_hits_total")
        async with service.openai(key=key) as client:
            await client.completions.create(model=model, prompt=prompt, max_tokens=1)
        return service.vllm("prefix_cache_hits_total") - before

    found = [await reused(key) for key in (KEY, KEY, QUIET_KEY, QUIET_KEY)]
    assert [tokens > 0 for tokens in found] == [False, True, False, True]


async def test_the_deployments_sampling_holds_where_a_request_names_none(service: Service, model: str) -> None:
    cold = f"{model}-cold"
    await service.deploy(cold, sampling={"temperature": 0.0})
    async with service.openai() as client:

        async def text(model: str, **asked: object) -> str:
            answer = await client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=24, **asked)
            return str(answer.choices[0].message.content)

        greedy = await text(model, temperature=0)
        drawn = await text(model, seed=11)
        assert greedy != drawn, "a model of random weights draws something else"
        assert await text(cold, seed=11) == greedy
        assert await text(cold, seed=11, temperature=1) == drawn, "what a request says stays"
        response = await client.responses.create(model=cold, input="a", max_output_tokens=8, store=False)
        assert response.temperature == 0


async def test_a_stream_says_the_same_as_the_whole_answer(service: Service, model: str) -> None:
    asked = {"model": model, "messages": MESSAGES, "max_tokens": 40, "seed": 3, "temperature": 0.7}
    async with service.openai() as client:
        whole = await client.chat.completions.create(**asked)
        chunks = [chunk async for chunk in await client.chat.completions.create(**asked, stream=True)]
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole.choices[0].message.content
        assert {(c.model, c.system_fingerprint) for c in chunks} == {(model, whole.system_fingerprint)}
        assert all(chunk.usage is None and chunk.choices for chunk in chunks), "usage was not asked for"
        counted = [
            chunk
            async for chunk in await client.chat.completions.create(
                **asked, stream=True, stream_options={"include_usage": True}
            )
        ]
        assert counted[-1].usage.completion_tokens == whole.usage.completion_tokens
        assert counted[-1].choices == []


async def test_completions_with_vllms_own_fields(service: Service, model: str) -> None:
    async with service.openai() as client:
        answer = await client.completions.create(
            model=model,
            prompt=["The quick", "brown fox"],
            max_tokens=5,
            logprobs=2,
            temperature=0,
            extra_body={"min_tokens": 5, "return_token_ids": True, "top_k": 5},
        )
        assert [len(choice.token_ids) for choice in answer.choices] == [5, 5]  # type: ignore[attr-defined]
        assert len(answer.choices[0].logprobs.tokens) == 5
        stream = await client.completions.create(
            model=model, prompt="The quick", max_tokens=5, temperature=0, stream=True, extra_body={"min_tokens": 5}
        )
        text = "".join([chunk.choices[0].text async for chunk in stream])
        assert text == answer.choices[0].text


async def test_answers_follow_a_schema(service: Service, model: str) -> None:
    class City(BaseModel):
        big: bool

    async with service.openai() as client:
        answer = await client.chat.completions.parse(
            model=model, messages=MESSAGES, response_format=City, max_tokens=200, temperature=0
        )
        assert answer.choices[0].message.parsed in (City(big=True), City(big=False))


async def test_tools_are_called(service: Service, model: str) -> None:
    parameters = {
        "type": "object",
        "properties": {"yes": {"type": "boolean"}},
        "required": ["yes"],
        "additionalProperties": False,
    }
    tool = {"type": "function", "function": {"name": "decide", "strict": True, "parameters": parameters}}
    async with service.openai() as client, service.http() as http:
        # A model of random weights would go on with white space for ever.
        asked = {"model": model, "prompt": " \n\t\r\v\f"}
        space = (await http.post("/tokenize", json=asked)).json()["tokens"]
        answer = await client.chat.completions.create(
            model=model,
            messages=MESSAGES,
            logit_bias={str(token): -100 for token in space},
            tools=[tool],
            tool_choice={"type": "function", "function": {"name": "decide"}},
            stop=["</tool_call>"],
            max_tokens=300,
            temperature=0,
            extra_body={"include_stop_str_in_output": True},
        )
        assert answer.choices[0].message.tool_calls, answer.choices[0]
        (call,) = answer.choices[0].message.tool_calls
        assert call.function.name == "decide"
        assert set(json.loads(call.function.arguments)) == {"yes"}


async def test_responses_without_state(service: Service, model: str) -> None:
    async with service.openai() as client:
        raw = await client.responses.with_raw_response.create(model=model, input="Hello", max_output_tokens=5)
        answer = raw.parse()
        assert (answer.model, raw.headers["x-hemostat-calibration"]) == (model, "identity")
        assert answer.usage.output_tokens <= 5
        events = [
            event
            async for event in await client.responses.create(
                model=model, input="Hello", max_output_tokens=5, stream=True
            )
        ]
        assert events[0].type == "response.created"
        assert events[-1].type in {"response.completed", "response.incomplete"}
        assert events[-1].response.model == model
        assert [event.sequence_number for event in events] == list(range(len(events)))
        for refused in ({"store": True}, {"previous_response_id": "resp_1"}, {"background": True}):
            with pytest.raises(openai.BadRequestError) as caught:
                await client.responses.create(model=model, input="Hello", **refused)
            assert caught.value.param == next(iter(refused))
            assert "not stored" in caught.value.message
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve("resp_1")


async def test_the_calibration_can_be_chosen_and_is_told(service: Service, model: str) -> None:
    async with service.openai() as client:
        for asked, used in (("auto", "identity"), ("off", "identity"), (VERSION, VERSION)):
            raw = await client.chat.completions.with_raw_response.create(
                model=model, messages=MESSAGES, max_tokens=2, extra_body={"hemostat": {"calibration": asked}}
            )
            assert raw.headers["x-hemostat-calibration"] == used
            assert raw.parse().system_fingerprint == f"hemostat-tiny-none-{used}"
        for bad in (
            {"calibration": "cal-ffffffffffffffff"},
            {"calibration": "newest"},
            {"calibration": None},
            {"calibrate": "off"},
            {"shadow": "no"},
        ):
            with pytest.raises(openai.BadRequestError):
                await client.chat.completions.create(
                    model=model, messages=MESSAGES, max_tokens=2, extra_body={"hemostat": bad}
                )


async def test_a_promoted_version_is_used_at_once(service: Service, model: str) -> None:
    async with service.store() as store:
        deployment = await store.get(model)
        await store.promote(deployment.id, VERSION, reason="test")
    async with service.openai() as client:
        deadline = time.monotonic() + 60
        while True:
            answer = await client.completions.create(model=model, prompt="a", max_tokens=1)
            if answer.system_fingerprint == f"hemostat-tiny-none-{VERSION}":
                break
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)


async def test_errors_are_the_clients_own_exceptions(service: Service, model: str) -> None:
    async with service.openai(key="wrong") as client:
        with pytest.raises(openai.AuthenticationError) as denied:
            await client.models.list()
        assert denied.value.code == "unauthorized"
        assert denied.value.response.headers["www-authenticate"] == "Bearer"
    async with service.openai(max_retries=0) as client:
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.chat.completions.create(model=model + "x", messages=MESSAGES)
        assert unknown.value.code == "deployment_not_found"
        assert model in unknown.value.message, "the nearest name is told"
        assert unknown.value.request_id
        for options in ({"n": 17}, {"temperature": -1}, {"max_tokens": "many"}, {"extra_body": {"min_p": 3}}):
            with pytest.raises(openai.BadRequestError) as bad:
                await client.chat.completions.create(model=model, messages=MESSAGES, **options)
            assert isinstance(bad.value.code, str)
        with pytest.raises(openai.BadRequestError) as long:
            await client.completions.create(model=model, prompt="word " * 10_000, max_tokens=5)
        assert long.value.code == "context_exceeded"
        with pytest.raises(openai.BadRequestError) as image:
            part = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/x.png"}}
            await client.chat.completions.create(model=model, messages=[{"role": "user", "content": [part]}])
        assert image.value.param == "messages[0].content[0]"
        with pytest.raises(openai.NotFoundError):
            await client.embeddings.create(model=model, input="x")
        with pytest.raises(openai.APIStatusError) as verify:
            await client.chat.completions.create(
                model=model, messages=MESSAGES, extra_body={"hemostat": {"verify": True}}
            )
        assert (verify.value.status_code, verify.value.body["code"]) == (501, "verify_unavailable")


async def test_nothing_is_generated_for_a_client_that_gave_up(service: Service, model: str) -> None:
    before = service.generated()
    to_the_end = service.vllm("request_success_total", finished_reason="length")
    async with service.openai(max_retries=0) as client:
        long = client.completions.create(model=model, prompt="a", n=8, max_tokens=3500, extra_body={"ignore_eos": True})
        asked = asyncio.create_task(long)
        await service.until_begun(before)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
    await service.until_still(before)
    assert service.vllm("request_success_total", finished_reason="length") == to_the_end, "it went on for nobody"
