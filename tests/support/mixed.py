"""Mixed traffic through the official client: every kind of request that an application makes, each checked."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import openai

Kind = Callable[["Traffic", int], Awaitable[None]]
AT_ONCE = 12
SENTENCE = "the quick brown fox jumps over a lazy dog and may lose what it knew"
WORDS = SENTENCE.split()
VERDICT = {
    "type": "object",
    "properties": {"verdict": {"enum": ["bleeds", "holds"]}},
    "required": ["verdict"],
    "additionalProperties": False,
}


class Traffic:
    """`version` is what the deployment serves; `calibrations` counts what answered, as each answer says itself;
    `repeated` counts seeded requests that were sent twice, by whether both answers were the same.
    """

    def __init__(self, url: str, model: str, version: str) -> None:
        self.client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=180)
        self.model = model
        self.version = version
        self.calibrations: Counter[str] = Counter()
        self.repeated: Counter[bool] = Counter()
        self.tokens = 0

    async def send(self, count: int, kinds: tuple[Kind, ...]) -> None:
        """So many requests, of each kind in turn, `AT_ONCE` at a time. Raises what the first one raises."""
        room = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with room:
                await kinds[number % len(kinds)](self, number)

        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(one(number))

    async def close(self) -> None:
        await self.client.close()

    def text(self, number: int) -> str:
        draw = random.Random(number)
        return " ".join(draw.choices(WORDS, k=draw.randrange(4, 12)))

    def common(self, number: int, **fields: Any) -> dict[str, Any]:
        return {"model": self.model, "max_tokens": 16 + number % 17, "temperature": 1.0} | fields

    def talk(self, number: int, **fields: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": self.text(number)}]
        return self.common(number, messages=messages, **fields)

    def seen(self, answer: Any, version: str) -> None:
        """What an answer says of itself."""
        assert answer.system_fingerprint.endswith(f"-{version}"), answer.system_fingerprint
        assert answer.model == self.model
        self.calibrations[version] += 1
        if answer.usage is not None:
            self.tokens += answer.usage.completion_tokens


async def chat(traffic: Traffic, number: int) -> None:
    raw = await traffic.client.chat.completions.with_raw_response.create(**traffic.talk(number))
    answer = raw.parse()
    assert raw.headers["x-hemostat-calibration"] == traffic.version
    assert answer.choices[0].finish_reason in {"stop", "length"}
    assert 1 <= answer.usage.completion_tokens <= 16 + number % 17
    traffic.seen(answer, traffic.version)


async def text(traffic: Traffic, number: int) -> None:
    asked = traffic.common(number, prompt=traffic.text(number), stop=["\n\n"], top_p=0.95)
    answer = await traffic.client.completions.create(**asked)
    assert answer.usage.prompt_tokens > 0
    traffic.seen(answer, traffic.version)


async def chat_stream(traffic: Traffic, number: int) -> None:
    asked = traffic.talk(number, stream=True, stream_options={"include_usage": True})
    events = [event async for event in await traffic.client.chat.completions.create(**asked)]
    reasons = [choice.finish_reason for event in events for choice in event.choices if choice.finish_reason]
    assert len(reasons) == 1
    assert len(events) >= 2
    assert events[-1].usage is not None
    assert events[-1].choices == []
    traffic.seen(events[-1], traffic.version)


async def text_stream(traffic: Traffic, number: int) -> None:
    stream = await traffic.client.completions.create(**traffic.common(number, prompt=traffic.text(number), stream=True))
    events = [event async for event in stream]
    assert all(event.usage is None for event in events), "nobody asked for it"
    assert events[-1].choices[0].finish_reason in {"stop", "length"}
    traffic.seen(events[-1], traffic.version)


async def logprobs(traffic: Traffic, number: int) -> None:
    answer = await traffic.client.chat.completions.create(**traffic.talk(number, logprobs=True, top_logprobs=5))
    shown = answer.choices[0].logprobs.content
    assert len(shown) == answer.usage.completion_tokens
    for token in shown:
        assert len(token.top_logprobs) == 5
        mass = sum(math.exp(one.logprob) for one in token.top_logprobs)
        assert mass <= 1.001
        assert token.logprob <= 0
    traffic.seen(answer, traffic.version)


async def several(traffic: Traffic, number: int) -> None:
    answer = await traffic.client.chat.completions.create(**traffic.talk(number, n=2))
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].message.content != answer.choices[1].message.content
    traffic.seen(answer, traffic.version)


async def seeded(traffic: Traffic, number: int) -> None:
    asked = traffic.common(number, prompt=traffic.text(number), seed=number)
    first, again = [await traffic.client.completions.create(**asked) for _ in range(2)]
    traffic.repeated[first.choices[0].text == again.choices[0].text] += 1
    traffic.seen(first, traffic.version)


async def uncalibrated(traffic: Traffic, number: int) -> None:
    asked = traffic.talk(number, extra_body={"hemostat": {"calibration": "off"}})
    raw = await traffic.client.chat.completions.with_raw_response.create(**asked)
    assert raw.headers["x-hemostat-calibration"] == "identity"
    traffic.seen(raw.parse(), "identity")


async def pinned(traffic: Traffic, number: int) -> None:
    asked = traffic.talk(number, extra_body={"hemostat": {"calibration": traffic.version}, "top_k": 50})
    traffic.seen(await traffic.client.chat.completions.create(**asked), traffic.version)


async def structured(traffic: Traffic, number: int) -> None:
    schema = {"name": "verdict", "schema": VERDICT, "strict": True}
    asked = traffic.talk(number, response_format={"type": "json_schema", "json_schema": schema}, max_tokens=200)
    answer = await traffic.client.chat.completions.create(**asked)
    if answer.choices[0].finish_reason == "stop":  # a model of no sense may fill its answer with white space
        assert json.loads(answer.choices[0].message.content)["verdict"] in {"bleeds", "holds"}
    traffic.seen(answer, traffic.version)


async def chosen(traffic: Traffic, number: int) -> None:
    asked = traffic.talk(number, extra_body={"structured_outputs": {"choice": ["bleeds", "holds"]}})
    answer = await traffic.client.chat.completions.create(**asked)
    assert answer.choices[0].message.content in {"bleeds", "holds"}
    traffic.seen(answer, traffic.version)


PLAIN: tuple[Kind, ...] = (chat, text)
KINDS: tuple[Kind, ...] = (
    *(chat, text, chat_stream, text_stream, logprobs, several, seeded, uncalibrated, pinned, structured),
    *(chat, text, chat_stream, text_stream, chosen),
)
