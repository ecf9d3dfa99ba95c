"""Replicas that a test plays: a small HTTP server each, and a gateway before them in this process."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from app.gateway.core import Gateway
from app.gateway.directory import Directory
from app.main import create_app
from app.settings import Settings
from tests.support.keys import key_line, write_keys
from tests.unit.app.gateway.test_directory import Store
from tests.unit.app.gateway.test_replicas import deployment, replica

CHUNK = {"id": "c", "object": "text_completion", "created": 1, "model": "inner"}
WHOLE = {**CHUNK, "choices": [{"index": 0, "text": "a", "finish_reason": "length"}], "usage": {"completion_tokens": 1}}


def event(text="a", finish=None, stop=None):
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish, "stop_reason": stop}
    return b"data: " + json.dumps(CHUNK | {"choices": [choice]}, separators=(",", ":")).encode() + b"\n\n"


Answer = Callable[[dict[str, Any]], Awaitable[Response]]


@dataclass
class Peer:
    """A replica. `answers` are given one after the other, the last one again and again."""

    answers: list[Answer]
    asked: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    broken: bool = False  # what the engine's door says of every request
    reason: str = "logits were not finite"
    doubted: int = 0  # how often it was asked
    health: int = 200
    tokenizes: int = 200
    tokenized: int = 0
    tokenizing: Callable[[], Awaitable[Any]] | None = None  # what it waits for

    def application(self):
        async def models(_):
            return JSONResponse({"data": [{"id": "inner"}]})

        async def tokenize(request):
            assert (await request.json())["model"] == "inner"
            self.tokenized += 1
            if self.tokenizing is not None:
                await self.tokenizing()
            if self.tokenizes != 200:
                return JSONResponse({"error": {"message": "it failed"}}, self.tokenizes)
            return JSONResponse({"tokens": [1, 2, 3], "max_model_len": 100})

        async def generate(request):
            self.asked.append(await request.json())
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            return await answer(self.asked[-1])

        async def nonfinite(_):
            self.doubted += 1
            return JSONResponse({"nonfinite": self.broken, "reason": self.reason if self.broken else ""})

        async def health(_):
            return Response(status_code=self.health)

        paths = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/verified")
        return Starlette(
            routes=[
                Route("/v1/models", models),
                Route("/tokenize", tokenize, methods=["POST"]),
                Route("/nonfinite/{request}", nonfinite),
                Route("/health", health),
                *(Route(path, generate, methods=["POST"]) for path in paths),
            ]
        )


def whole(body, status=200):
    async def answer(_):
        return JSONResponse(body, status) if not isinstance(body, bytes) else Response(body, status)

    return answer


def stream(*parts, kind="text/event-stream"):
    """Bytes are sent, numbers are seconds of silence, an exception cuts the connection."""

    async def body():
        for part in parts:
            if isinstance(part, float):
                await asyncio.sleep(part)
            elif isinstance(part, Exception):
                raise part
            else:
                yield part

    async def answer(_):
        return StreamingResponse(body(), media_type=kind)

    return answer


@asynccontextmanager
async def serving(*peers):
    servers = []
    for peer in peers:
        config = uvicorn.Config(peer.application(), port=0, log_level="critical", lifespan="off", access_log=False)
        server = uvicorn.Server(config)
        task = asyncio.create_task(server._serve())
        while not server.started:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.005)
        peer.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        servers.append((server, task))
    try:
        yield
    finally:
        for server, _ in servers:
            server.should_exit = True
            server.force_exit = True
        await asyncio.gather(*(task for _, task in servers))


@asynccontextmanager
async def calling(tmp_path, served, *, owners=(), **settings):
    """A client of the gateway; `owners` have a key each, which `tests.support.keys.bearer` sends."""
    if owners:
        settings["api_keys_file"] = write_keys(tmp_path / "keys", *(key_line(owner, "admin") for owner in owners))
    app = create_app(Settings(home=tmp_path, **settings))
    gateway = Gateway.of(app.state.hemostat)
    gateway.directory = Directory(served if isinstance(served, Store) else Store(served))
    gateway.directory.on_read = gateway.resize
    app.state.hemostat_gateway = gateway
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
            yield http
    finally:
        await gateway.close()
        await app.state.hemostat.redis.aclose()


def of(*peers, **fields):
    running = tuple(replica(f"r{number}", url=peer.url) for number, peer in enumerate(peers))
    return deployment(*running, **fields)


ASKED = {"model": "m", "prompt": "x"}
