"""Exchanges with replicas that misbehave in ways that vLLM does not on demand: a small HTTP server plays them."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from app.contracts.deployment import Deployment
from app.gateway.core import Gateway
from app.gateway.directory import Directory
from app.gateway.sse import Parser
from app.main import create_app
from app.settings import Settings
from tests.unit.app.gateway.test_directory import Store
from tests.unit.app.gateway.test_replicas import deployment, replica

CHUNK = {"id": "c", "object": "text_completion", "created": 1, "model": "inner"}
WHOLE = {**CHUNK, "choices": [{"index": 0, "text": "a", "finish_reason": "length"}], "usage": {"completion_tokens": 1}}


def event(text: str = "a", finish: str | None = None, stop: int | None = None) -> bytes:
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

    def application(self) -> Starlette:
        async def models(_: Request) -> Response:
            return JSONResponse({"data": [{"id": "inner"}]})

        async def tokenize(request: Request) -> Response:
            assert (await request.json())["model"] == "inner"
            return JSONResponse({"tokens": [1, 2, 3], "max_model_len": 100})

        async def generate(request: Request) -> Response:
            self.asked.append(await request.json())
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            return await answer(self.asked[-1])

        async def nonfinite(_: Request) -> Response:
            self.doubted += 1
            return JSONResponse({"nonfinite": self.broken, "reason": self.reason if self.broken else ""})

        async def health(_: Request) -> Response:
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


def whole(body: Any, status: int = 200) -> Answer:
    async def answer(_: dict[str, Any]) -> Response:
        return JSONResponse(body, status) if not isinstance(body, bytes) else Response(body, status)

    return answer


def stream(*parts: bytes | float | Exception, kind: str = "text/event-stream") -> Answer:
    """Bytes are sent, numbers are seconds of silence, an exception cuts the connection."""

    async def body() -> AsyncIterator[bytes]:
        for part in parts:
            if isinstance(part, float):
                await asyncio.sleep(part)
            elif isinstance(part, Exception):
                raise part
            else:
                yield part

    async def answer(_: dict[str, Any]) -> Response:
        return StreamingResponse(body(), media_type=kind)

    return answer


@asynccontextmanager
async def serving(*peers: Peer) -> AsyncIterator[None]:
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
async def calling(tmp_path: Path, served: Deployment | Store, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
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


def of(*peers: Peer, **fields: Any) -> Deployment:
    running = tuple(replica(f"r{number}", url=peer.url) for number, peer in enumerate(peers))
    return deployment(*running, **fields)


ASKED = {"model": "m", "prompt": "x"}


async def test_the_replica_gets_the_body_whole_and_what_is_ours(tmp_path: Path) -> None:
    peer = Peer([whole(WHOLE)])
    async with serving(peer), calling(tmp_path, of(peer)) as http:
        given = {**ASKED, "top_k": 3, "unheard_of": {"a": [None]}, "vllm_xargs": {"mine": "x"}, "hemostat": {}}
        answer = await http.post("/v1/completions", json=given)
        assert answer.json()["model"] == "m"
        (sent,) = peer.asked
        extra = sent.pop("vllm_xargs")
        assert len(extra.pop("hemostat_request")) == 32
        assert extra == {"mine": "x", "hemostat_version": "identity"}
        assert sent == {"model": "inner", "prompt": "x", "top_k": 3, "unheard_of": {"a": [None]}}
        refused = await http.post("/v1/completions", json=ASKED | {"vllm_xargs": {"hemostat_version": "identity"}})
        assert refused.json()["error"]["param"] == "vllm_xargs"
        assert len(peer.asked) == 1


async def test_several_answers_of_a_deployment_that_is_greedy_never_reach_a_replica(tmp_path: Path) -> None:
    peer = Peer([whole(WHOLE)])
    async with serving(peer), calling(tmp_path, of(peer, sampling={"temperature": 0})) as http:
        refused = await http.post("/v1/completions", json=ASKED | {"n": 2})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "n")
        assert "m has temperature 0 for requests that name none" in refused.json()["error"]["message"]
        assert peer.asked == []
        assert (await http.post("/v1/completions", json=ASKED | {"n": 2, "temperature": 1})).status_code == 200
        assert (await http.post("/v1/responses", json={"model": "m", "input": "x", "n": 2})).status_code != 400


@pytest.mark.parametrize("cut", [1, 7, 64])
async def test_events_come_whole_however_they_were_cut_on_the_way(tmp_path: Path, cut: int) -> None:
    raw = b": hello\r\n\r\n" + (event("a") + event("b", "length") + b"data: [DONE]\n\n").replace(b"\n", b"\r\n")
    peer = Peer([stream(*(raw[at : at + cut] for at in range(0, len(raw), cut)))])
    async with serving(peer), calling(tmp_path, of(peer)) as http:
        answer = await http.post("/v1/completions", json=ASKED | {"stream": True})
    first, second, done, rest = answer.text.split("\n\n")
    assert [json.loads(part[6:])["choices"][0]["text"] for part in (first, second)] == ["a", "b"]
    assert (done, rest) == ("data: [DONE]", "")
    assert answer.headers["x-hemostat-calibration"] == "identity"


async def test_events_that_came_together_go_together_also_before_one_that_fails(tmp_path: Path) -> None:
    many = b"".join(event(str(number)) for number in range(50))
    good = Peer([stream(many + event("end", "length") + b"data: [DONE]\n\n")])
    async with serving(good), calling(tmp_path / "good", of(good)) as http:
        answer = await http.post("/v1/completions", json=ASKED | {"stream": True})
    *events, done, rest = answer.text.split("\n\n")
    texts = [json.loads(part[6:])["choices"][0]["text"] for part in events]
    assert texts == [*map(str, range(50)), "end"]
    assert (done, rest) == ("data: [DONE]", "")
    bad = Peer([stream(many + b'data: {"error": {"message": "x", "code": 500}}\n\n' + event("never"))])
    async with serving(bad), calling(tmp_path / "bad", of(bad)) as http:
        answer = await http.post("/v1/completions", json=ASKED | {"stream": True})
    *events, failed, _ = answer.text.split("\n\n")
    assert [json.loads(part[6:])["choices"][0]["text"] for part in events] == texts[:50]
    assert json.loads(failed[6:])["error"]["code"] == "engine_failed"


@pytest.mark.parametrize(
    "bad",
    [
        whole({"error": {"message": "full", "code": 503}}, 503),
        whole(b"no json"),
        stream(RuntimeError("cut")),
    ],
)
async def test_another_replica_is_asked_where_nothing_was_answered(
    tmp_path: Path, bad: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.gateway.replicas.SHUNNED_S", 600.0)
    first, second = Peer([bad]), Peer([whole(WHOLE)])
    async with serving(first, second), calling(tmp_path, of(first, second)) as http:
        answer = await http.post("/v1/completions", json=ASKED)
        assert answer.status_code == 200
        assert (len(first.asked), len(second.asked)) == (1, 1)
        await http.post("/v1/completions", json=ASKED)
        assert len(first.asked) == 1, "it is left alone for a while"


async def test_what_took_too_long_is_not_begun_again(tmp_path: Path) -> None:
    async def slow(_: dict[str, Any]) -> Response:
        await asyncio.sleep(60)
        return JSONResponse(WHOLE)

    first, second = Peer([slow]), Peer([whole(WHOLE)])
    async with serving(first, second), calling(tmp_path, of(first, second), gateway_answer_timeout_s=1.0) as http:
        answer = await http.post("/v1/completions", json=ASKED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "replica_unavailable")
    assert answer.headers["x-should-retry"] == "false"
    assert (len(first.asked), len(second.asked)) == (1, 0)


async def test_a_request_that_ends_replicas_does_not_end_all_of_them(tmp_path: Path) -> None:
    peers = [Peer([stream(RuntimeError("died"))]) for _ in range(5)]
    async with serving(*peers), calling(tmp_path, of(*peers)) as http:
        answer = await http.post("/v1/completions", json=ASKED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "replica_unavailable")
    assert sum(len(peer.asked) for peer in peers) == 3


@pytest.mark.parametrize(
    "end",
    [RuntimeError("cut"), b"", b"data: {no json\n\n", b'data: {"error": {"message": "x", "code": 500}}\n\n', 30.0],
)
async def test_a_stream_that_breaks_ends_with_an_error_and_is_not_begun_again(tmp_path: Path, end: Any) -> None:
    first, second = Peer([stream(event(), end)]), Peer([whole(WHOLE)])
    async with serving(first, second), calling(tmp_path, of(first, second), gateway_read_timeout_s=2.0) as http:
        answer = await http.post("/v1/completions", json=ASKED | {"stream": True})
    assert answer.status_code == 200
    parts = answer.text.strip().split("\n\n")
    assert len(parts) == 2
    assert json.loads(parts[-1].removeprefix("data: "))["error"]["code"] in {"replica_unavailable", "engine_failed"}
    assert second.asked == []


FAILED = {"error": {"message": "Internal server error", "code": 500}}


DEAD = {"error": {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "code": 500}}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("dead", [True, False])
async def test_an_error_of_a_replica_whose_engine_is_dead_is_not_taken_for_the_requests(
    tmp_path: Path, dead: bool, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its HTTP side lives on for a while, and has the least in flight: it would be chosen again and again."""
    monkeypatch.setattr("app.gateway.replicas.SHUNNED_S", 600.0)
    failing = stream(f"data: {json.dumps(DEAD)}\n\ndata: [DONE]\n\n".encode()) if streamed else whole(DEAD, 500)
    well = stream(event("a", "length") + b"data: [DONE]\n\n") if streamed else whole(WHOLE)
    first, second = Peer([failing], health=503 if dead else 200), Peer([well])
    async with serving(first, second), calling(tmp_path, of(first, second, replicas=2)) as http:
        answers = [await http.post("/v1/completions", json=ASKED | {"stream": streamed}) for _ in range(3)]
    if dead:
        assert [answer.status_code for answer in answers] == [200, 200, 200]
        assert (len(first.asked), len(second.asked)) == (1, 3), "and it is left alone"
    else:
        assert {answer.json()["error"]["code"] for answer in answers} == {"engine_failed"}
        assert second.asked == []


def long_answer(reason: str, stop: int | str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "text": "a b c d", "finish_reason": reason, "stop_reason": stop}
    return {**CHUNK, "choices": [choice], "usage": {"completion_tokens": 4}}


@pytest.mark.parametrize(
    ("answer", "asked", "doubtful"),
    [
        (whole(long_answer("stop", 2)), {}, True),
        (whole(long_answer("stop")), {}, False),
        (whole(long_answer("stop", "###")), {}, False),
        (whole(long_answer("error")), {}, True),
        (whole(long_answer("length")), {"ignore_eos": True}, False),
        (whole(long_answer("length")), {"use_beam_search": True}, True),
        (whole(WHOLE), {}, False),
        (whole(WHOLE), {"prompt_logprobs": 0}, True),  # its one token was drawn before the prompt's rows were seen
        (whole(WHOLE), {"echo": True}, True),
        (whole(FAILED, 500), {}, True),  # vLLM ends a request so whose grammar forbids the end
        (stream(*[event()] * 4, event("a", "stop", 2), b"data: [DONE]\n\n"), {"stream": True}, True),
        (stream(*[event()] * 4, event("a", "stop"), b"data: [DONE]\n\n"), {"stream": True}, False),
        (stream(event("a", "length"), b"data: [DONE]\n\n"), {"stream": True}, False),
        (stream(event("a", "length"), b"data: [DONE]\n\n"), {"stream": True, "echo": True}, True),
        (stream(event(), f"data: {json.dumps(FAILED)}\n\n".encode()), {"stream": True}, True),
    ],
)
async def test_the_engine_is_asked_where_it_may_have_forced_the_end(
    tmp_path: Path, answer: Answer, asked: dict[str, Any], doubtful: bool
) -> None:
    for broken in (False, True):
        peer = Peer([answer], broken=broken)
        async with serving(peer):
            served = deployment(replica("r", url=peer.url, engine_url=peer.url))
            async with calling(tmp_path, served) as http:
                told = await http.post("/v1/completions", json=ASKED | asked)
        assert peer.doubted == doubtful
        assert ("nonfinite_logits" in told.text) is (broken and doubtful)


LAST = stream(event("b", "stop", 2), b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("answer", "asked", "told"),
    [
        (whole(long_answer("stop", 2)), {}, "cannot tell"),
        (LAST, {"stream": True}, "cannot tell"),
        (whole(long_answer("length")), {"echo": True}, "cannot tell"),
        (whole(long_answer("length")), {"echo": True, "stop_token_ids": [2]}, "cannot tell"),
        (whole(long_answer("stop", 2)), {"stop_token_ids": [2]}, ""),  # it explains the end
        (LAST, {"stream": True, "stop_token_ids": [2]}, ""),
        (whole(long_answer("length")), {}, ""),  # nobody has to be asked
        (whole(FAILED, 500), {}, "failed on this request"),
    ],
)
async def test_an_end_that_the_engine_may_have_forced_is_no_answer_while_it_cannot_be_asked(
    tmp_path: Path, answer: Answer, asked: dict[str, Any], told: str
) -> None:
    peer = Peer([answer])
    async with serving(peer):
        served = deployment(replica("r", url=peer.url, engine_url="http://127.0.0.1:9"))
        async with calling(tmp_path, served) as http:
            got = await http.post("/v1/completions", json=ASKED | asked)
    if not told:
        assert (got.status_code, "error" in got.text) == (200, False)
        return
    assert told in got.json()["error"]["message"]
    if told == "cannot tell":
        assert (got.status_code, got.json()["error"]["code"]) == (503, "replica_unavailable")
        assert got.headers["x-should-retry"] == "true"


async def test_an_engine_that_ended_a_request_for_another_reason_says_which(tmp_path: Path) -> None:
    reason = "its calibration version is not loaded"
    peer = Peer([whole(long_answer("stop", 2))], broken=True, reason=reason)
    async with serving(peer):
        served = deployment(replica("r", url=peer.url, engine_url=peer.url))
        async with calling(tmp_path, served) as http:
            got = await http.post("/v1/completions", json=ASKED)
    assert (got.status_code, got.json()["error"]["code"]) == (503, "replica_unavailable")
    assert reason in got.json()["error"]["message"]
    assert "broken" not in got.text


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_that_is_too_large_is_the_requests_fault_and_not_computed_again(
    tmp_path: Path, streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.gateway.upstream.MAX_ANSWER_BYTES", 1 << 20)
    monkeypatch.setattr("app.gateway.exchange.Parser", lambda: Parser(1 << 20))
    large = {**long_answer("length"), "prompt_logprobs": "x" * (2 << 20)}
    answer = stream(f"data: {json.dumps(large)}\n\n".encode()) if streamed else whole(large)
    first, second = Peer([answer, whole(WHOLE)]), Peer([whole(WHOLE)])
    async with serving(first, second), calling(tmp_path, of(first, second, replicas=2)) as http:
        got = await http.post("/v1/completions", json=ASKED | {"stream": streamed})
        assert (got.status_code, got.json()["error"]["code"]) == (400, "invalid_request")
        assert got.headers["x-should-retry"] == "false"
        assert "Ask for fewer" in got.json()["error"]["message"]
        await http.post("/v1/completions", json=ASKED)
    assert (len(first.asked), len(second.asked)) == (2, 0), "and the replica is not left alone"


async def test_an_error_as_first_event_is_an_error_with_its_status(tmp_path: Path) -> None:
    told = b'data: {"error": {"message": "bad thing", "code": 400, "param": "stop"}}\n\n'
    peer = Peer([stream(told)])
    async with serving(peer), calling(tmp_path, of(peer)) as http:
        answer = await http.post("/v1/completions", json=ASKED | {"stream": True})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "stop")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/responses/r"),
        ("DELETE", "/v1/responses/r"),
        ("POST", "/v1/responses/r/cancel"),
        ("GET", "/v1/responses/r/input_items"),
    ],
)
async def test_no_response_is_there_to_be_read_deleted_or_cancelled(tmp_path: Path, method: str, path: str) -> None:
    async with calling(tmp_path, of()) as http:
        answer = await http.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert "not stored" in answer.json()["error"]["message"]


async def test_a_body_beyond_the_gateways_own_limit_is_413(tmp_path: Path) -> None:
    async with calling(tmp_path, of(), gateway_max_body_bytes=2000) as http:
        answer = await http.post("/v1/completions", json=ASKED | {"prompt": "x" * 2000})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


# --- verified decoding

BLOCKS = (
    b'{"token_ids": [5, 6], "text": "Hel"}\n{"token_ids": [7], "te',
    b'xt": "lo"}\n',
    b'{"finish_reason": "stop", "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}, '
    b'"acceptance_rate": 0.75, "tokens_per_reference_pass": 3.5}\n',
)
TALK = {"model": "m", "messages": [{"role": "user", "content": "x"}], "hemostat": {"verify": True}}


def verified(door: Peer, serve: Peer, **fields: Any) -> Deployment:
    runs = {"role": "verify", "url": door.url} | fields
    return deployment(replica("s", url=serve.url), replica("v", **runs), verify=True)


async def test_verified_blocks_become_openais_answers(tmp_path: Path) -> None:
    door, serve = Peer([stream(*BLOCKS)]), Peer([whole(WHOLE)])
    async with serving(door, serve), calling(tmp_path, verified(door, serve)) as http:
        answer = await http.post("/v1/chat/completions", json=TALK | {"temperature": 0.5, "seed": 1, "n": 1})
        said = answer.json()
        assert said["choices"][0]["message"]["content"] == "Hello"
        assert said["usage"]["total_tokens"] == 6
        assert said["hemostat"] == {"verified": True, "acceptance_rate": 0.75, "tokens_per_reference_pass": 3.5}
        assert answer.headers["x-hemostat-calibration"] == "verified"
        assert said["system_fingerprint"] == "hemostat-x-none-verified"
        asked = {"prompt": [1, 2, 3], "max_tokens": 97, "fewer": True, "temperature": 0.5, "seed": 1}
        assert door.asked == [asked]
        streamed = await http.post("/v1/chat/completions", json=TALK | {"stream": True})
        *events, done, _ = streamed.text.split("\n\n")
        chunks = [json.loads(one.removeprefix("data: ")) for one in events]
        assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "Hello"
        assert chunks[-1]["hemostat"]["acceptance_rate"] == 0.75
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
        assert done == "data: [DONE]"
        text = await http.post(
            "/v1/completions", json={"model": "m", "prompt": "x", "max_tokens": 5, "hemostat": {"verify": True}}
        )
        assert text.json()["choices"][0]["text"] == "Hello"
    assert serve.asked == []


async def test_where_the_self_test_failed_it_is_501_with_the_reason(tmp_path: Path) -> None:
    door, serve = Peer([whole({})]), Peer([whole(WHOLE)])
    failed = verified(door, serve, state="failed", reason="chi-square 812 of 49 degrees")
    async with serving(door, serve), calling(tmp_path, failed) as http:
        answer = await http.post("/v1/chat/completions", json=TALK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (501, "verify_unavailable")
    assert "chi-square 812" in answer.json()["error"]["message"]
    assert answer.headers["x-should-retry"] == "false"
    assert door.asked == []


async def test_where_verification_is_not_switched_on_the_501_says_how(tmp_path: Path) -> None:
    serve = Peer([whole(WHOLE)])
    async with serving(serve), calling(tmp_path, of(serve)) as http:
        answer = await http.post("/v1/chat/completions", json=TALK)
    assert (answer.status_code, answer.json()["error"]["code"]) == (501, "verify_unavailable")
    assert "hemostat deploy create" in answer.json()["error"]["message"]
    assert "--verify" in answer.json()["error"]["message"]
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"state": "starting", "reason": "self-test: 3 of 8"}, "self-test: 3 of 8"),
        ({"state": "starting"}, "is starting"),
        ({"role": "shadow"}, "does not run"),
    ],
)
async def test_while_verification_starts_it_is_503_and_worth_another_attempt(
    tmp_path: Path, fields: dict[str, Any], reason: str
) -> None:
    door, serve = Peer([whole({})]), Peer([whole(WHOLE)])
    async with serving(door, serve), calling(tmp_path, verified(door, serve, **fields)) as http:
        answer = await http.post("/v1/chat/completions", json=TALK)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (503, "replica_unavailable")
    assert reason in error["message"]
    assert "Leave" not in error["message"]
    assert int(answer.headers["retry-after"]) > 0
    assert answer.headers["x-should-retry"] == "true"


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (whole({"reason": "it has ended"}, 501), 503, "replica_unavailable"),
        (whole({"reason": "busy"}, 503), 503, "replica_unavailable"),
        (whole({"detail": "…; verified decoding takes 64 together"}, 400), 400, "context_exceeded"),
        (stream(b'{"error": "the reference\'s logits are not finite"}\n'), 500, "nonfinite_logits"),
        (stream(BLOCKS[0]), 503, "replica_unavailable"),
        (stream(b"no json\n"), 503, "replica_unavailable"),
    ],
)
async def test_a_verify_process_that_fails(tmp_path: Path, answer: Answer, status: int, code: str) -> None:
    door, serve = Peer([answer]), Peer([whole(WHOLE)])
    async with serving(door, serve), calling(tmp_path, verified(door, serve)) as http:
        got = await http.post("/v1/chat/completions", json=TALK)
    assert (got.status_code, got.json()["error"]["code"]) == (status, code)
    if code == "context_exceeded":
        assert got.json()["error"]["param"] == "messages"


@pytest.mark.parametrize(
    "more",
    [{"n": 2}, {"logprobs": True}, {"tools": [{}]}, {"logit_bias": {"1": 1}}, {"frequency_penalty": 0.1}, {"new": 1}],
)
async def test_what_would_change_the_promised_distribution_is_refused(tmp_path: Path, more: dict[str, Any]) -> None:
    async with calling(tmp_path, of()) as http:
        answer = await http.post("/v1/chat/completions", json=TALK | more)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(more)))


async def test_what_waits_and_what_is_under_way_can_be_seen(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def slow(_: dict[str, Any]) -> Response:
        await release.wait()
        return JSONResponse(WHOLE)

    peer = Peer([slow])
    served = of(peer)
    async with serving(peer):
        served = of(peer)
        async with calling(tmp_path, served, gateway_max_in_flight=2, gateway_max_queued=1) as http:

            async def shown() -> tuple[str, ...]:
                text = (await http.get("/metrics")).text
                return tuple(
                    line.rpartition(" ")[2]
                    for line in text.splitlines()
                    if line.startswith(("hemostat_gateway_in_flight_requests{", "hemostat_gateway_queued_requests{"))
                )

            tasks = [asyncio.create_task(http.post("/v1/completions", json=ASKED)) for _ in range(3)]
            async with asyncio.timeout(90):
                while await shown() != ("2.0", "1.0"):  # noqa: ASYNC110 - it is polled, as Prometheus does
                    await asyncio.sleep(0.02)
            refused = await http.post("/v1/completions", json=ASKED)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
            release.set()
            assert [answer.status_code for answer in await asyncio.gather(*tasks)] == [200, 200, 200]
            assert await shown() == ("0.0", "0.0")


A = "cal-000000000000000a"


class Held:
    """Answers that wait until they are let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def __call__(self, _: dict[str, Any]) -> Response:
        await self.go.wait()
        return JSONResponse(WHOLE)


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not done():  # noqa: ASYNC110 - it is what is counted that is waited for
            await asyncio.sleep(0.01)


async def test_a_request_that_waited_goes_by_what_is_so_when_its_turn_comes(tmp_path: Path) -> None:
    """The version was rolled back meanwhile, its replica replaced by another one."""
    held = Held()
    first, second = Peer([held]), Peer([whole(WHOLE)])
    async with serving(first, second):
        versions = ("identity", A)
        old, new = replica("old", url=first.url, versions=versions), replica("new", url=second.url, versions=versions)
        store = Store(deployment(old, active_version=A))
        async with calling(tmp_path, store, gateway_max_in_flight=1) as http:
            tasks = [asyncio.create_task(http.post("/v1/completions", json=ASKED)) for _ in range(3)]
            await until(lambda: len(first.asked) == 1)
            store.held = [deployment(new)]
            store.changes += 1
            held.go.set()
            answers = await asyncio.gather(*tasks)
    assert [answer.headers["x-hemostat-calibration"] for answer in answers] == [A, "identity", "identity"]
    assert (len(first.asked), len(second.asked)) == (1, 2)


async def test_waiting_requests_go_to_a_replica_that_becomes_ready_and_each_has_no_more_than_it_takes(
    tmp_path: Path,
) -> None:
    held = Held()
    first, second = Peer([held]), Peer([held])
    async with serving(first, second):
        one, two = (replica(peer.url[-5:], url=peer.url) for peer in (first, second))
        store = Store(deployment(one))
        async with calling(tmp_path, store, gateway_max_in_flight=2) as http:
            tasks = [asyncio.create_task(http.post("/v1/completions", json=ASKED)) for _ in range(6)]
            await until(lambda: len(first.asked) == 2)
            store.held = [deployment(one, two, replicas=2)]
            await until(lambda: len(second.asked) == 2)  # nobody else asks for the list
            assert len(first.asked) == 2
            held.go.set()
            assert {answer.status_code for answer in await asyncio.gather(*tasks)} == {200}
    assert len(first.asked) + len(second.asked) == 6


async def test_requests_that_only_one_replica_can_answer_wait_for_that_one(tmp_path: Path) -> None:
    held = Held()
    first, second = Peer([held]), Peer([whole(WHOLE)])
    async with serving(first, second):
        served = deployment(replica("a", url=first.url, versions=("identity", A)), replica("b", url=second.url))
        asked = ASKED | {"hemostat": {"calibration": A}}
        settings = {"gateway_max_in_flight": 2, "gateway_queue_timeout_s": 1.0}
        async with calling(tmp_path, served, **settings) as http:
            tasks = [asyncio.create_task(http.post("/v1/completions", json=asked)) for _ in range(2)]
            await until(lambda: len(first.asked) == 2)
            turned = await http.post("/v1/completions", json=asked)
            assert (turned.status_code, turned.json()["error"]["code"]) == (503, "replica_unavailable")
            assert "became free" in turned.json()["error"]["message"]
            later = asyncio.create_task(http.post("/v1/completions", json=asked))
            await asyncio.sleep(0.1)
            assert len(first.asked) == 2
            held.go.set()
            assert {answer.status_code for answer in await asyncio.gather(*tasks, later)} == {200}
    assert second.asked == []
