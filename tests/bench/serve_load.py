"""Load for a server: so many clients at once, greedy answers of fixed length, distinct prompts."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from uuid import uuid4

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

PROMPT_TOKENS = 32


@dataclass(frozen=True)
class Load:
    """What one run asks: `clients` requests at once, `tokens` each; `extra` goes into vLLM's `vllm_xargs`."""

    model: str
    clients: int
    tokens: int
    extra: dict[str, Any] = field(default_factory=dict)

    def body(self, number: int, kept: bool) -> dict[str, Any]:
        """The request of one client. Prompts differ from run to run: none is answered from the cache."""
        draw = random.Random(uuid4().int)
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": [draw.randrange(1000, 40_000) for _ in range(PROMPT_TOKENS)],
            "max_tokens": self.tokens,
            "temperature": 0,
            "ignore_eos": True,
        }
        if self.extra:
            body["vllm_xargs"] = self.extra | {"hemostat_request": f"bench-{uuid4().hex}-{number}"}
            if kept:
                body["vllm_xargs"]["hemostat_keep_hidden"] = 1
        return body


@dataclass
class Stream:
    """Times of one answer, seconds: to its first token, and between the others."""

    first: float
    gaps: list[float]


# What becomes of a request that was kept: its id, the ids of its prompt and of its answer.
Kept = Callable[[str, Sequence[int], Sequence[int]], Awaitable[None]]


@dataclass
class Sampled:
    """Of the requests of all runs that it is given to, one in `every` is kept for the shadow; `hand_on` gets it once it
    is answered.
    """

    every: int
    hand_on: Kept | None = None
    asked: int = 0

    def keeps(self) -> bool:
        """Whether the next request is one of them."""
        self.asked += 1
        return self.asked % self.every == 0


async def completions(url: str, load: Load, *, sampled: Sampled | None = None, rounds: int = 1) -> float:
    """Tokens per second, all clients together, `rounds` requests of each one after the other."""

    async def ask(client: httpx.AsyncClient, number: int) -> int:
        drawn = 0
        for _ in range(rounds):
            keeps = sampled is not None and sampled.keeps()
            body = load.body(number, keeps)
            answer = await client.post(f"{url}/v1/completions", json=body | {"return_token_ids": keeps})
            found = answer.raise_for_status().json()
            drawn += int(found["usage"]["completion_tokens"])
            if keeps and sampled is not None and sampled.hand_on is not None:
                output = found["choices"][0]["token_ids"]
                await sampled.hand_on(body["vllm_xargs"]["hemostat_request"], body["prompt"], output)
        return drawn

    async with _client() as client:
        started = time.perf_counter()
        drawn = sum(await asyncio.gather(*(ask(client, number) for number in range(load.clients))))
        elapsed = time.perf_counter() - started
    assert drawn == load.clients * load.tokens * rounds
    return float(drawn / elapsed)


async def streams(url: str, load: Load, *, rounds: int) -> list[Stream]:
    """The times of all streams: `rounds` of each client, one after the other."""
    async with _client() as client:

        async def ask(number: int) -> list[Stream]:
            return [await _stream(client, url, load.body(number, False)) for _ in range(rounds)]

        found = await asyncio.gather(*(ask(number) for number in range(load.clients)))
        return [stream for one in found for stream in one]


async def _stream(client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> Stream:
    times = [time.perf_counter()]
    async with client.stream("POST", f"{url}/v1/completions", json=body | {"stream": True}) as answer:
        answer.raise_for_status()
        times += [time.perf_counter() async for line in answer.aiter_lines() if line.startswith("data: {")]
    steps = [after - before for before, after in pairwise(times)]
    return Stream(steps[0], steps[1:])


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _client() -> httpx.AsyncClient:
    """aiohttp's transport reads streams in C: a client shares the cores with what it measures."""
    return httpx.AsyncClient(transport=AiohttpTransport(client=_session), timeout=600, trust_env=False)


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
