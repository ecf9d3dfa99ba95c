import hashlib
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from app.contracts.errors import HemostatError
from app.problems import response
from app.security.keys import KeyRing
from app.security.middleware import Authentication, BodyLimit, HostGuard, RateLimit


async def echo(request: Request) -> PlainTextResponse:
    owner = request.scope.get("hemostat.owner", "-")
    return PlainTextResponse(f"{owner} {len(await request.body())}")


async def on_error(request: Request, error: Exception) -> object:
    assert isinstance(error, HemostatError)
    return response(request.scope, error)


def inner() -> ASGIApp:
    routes = [Route(path, echo, methods=["GET", "POST"]) for path in ("/", "/livez", "/readyz", "/metrics")]
    return Starlette(routes=routes, exception_handlers={HemostatError: on_error})


def client(app: ASGIApp, base_url: str = "http://localhost") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base_url)


RING = KeyRing((("ci", hashlib.sha256(b"secret").digest()), ("ops", hashlib.sha256(b"other").digest())))


@pytest.mark.parametrize(
    "header", [None, "secret", "Basic secret", "Bearer", "Bearer wrong", "Bearer secretx", "Bearer \xff", ""]
)
async def test_without_a_key_nothing_but_the_probes_answers(header: str | None) -> None:
    async with client(Authentication(inner(), keys=RING)) as http:
        headers = {} if header is None else {"authorization": header.encode("latin-1")}
        for path in ("/", "/metrics"):
            answer = await http.get(path, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["code"] == "unauthorized"
        for path in ("/livez", "/readyz"):
            assert (await http.get(path, headers=headers)).text == "- 0"


async def test_a_key_names_its_owner() -> None:
    async with client(Authentication(inner(), keys=RING)) as http:
        for key, owner in (("secret", "ci"), ("other", "ops")):
            for path in ("/", "/readyz"):
                assert (await http.get(path, headers={"authorization": f"bearer {key}"})).text == f"{owner} 0"


@pytest.mark.parametrize("key", ["schl\u00fcssel", "pa\u00e0", "\u9375"])
async def test_a_key_may_have_any_characters(key: str) -> None:
    ring = KeyRing((("ci", hashlib.sha256(key.encode()).digest()),))
    async with client(Authentication(inner(), keys=ring)) as http:
        for spaces in ("", "  "):
            header = f"Bearer {spaces}{key}{spaces}".encode()
            assert (await http.get("/", headers={"authorization": header})).text == "ci 0"


async def test_without_keys_everything_answers() -> None:
    async with client(Authentication(inner(), keys=None)) as http:
        assert (await http.get("/")).text == "- 0"


@pytest.mark.parametrize(
    "base_url", ["http://localhost:8321", "http://127.0.0.1", "http://127.0.0.2:1", "http://[::1]:8321"]
)
async def test_this_machine_by_any_of_its_names_is_let_in(base_url: str) -> None:
    async with client(HostGuard(inner(), host="127.0.0.1"), base_url) as http:
        assert (await http.get("/")).status_code == 200
        assert (await http.get("/", headers={"origin": "http://localhost:3000"})).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example"},
        {"host": "localhost.evil.example:8321"},
        {"host": ""},
        {"host": "[::1"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"origin": ""},
        {"host": "evil.example", "origin": "http://localhost"},
    ],
)
async def test_a_foreign_name_is_turned_away(headers: dict[str, str]) -> None:
    async with client(HostGuard(inner(), host="127.0.0.1")) as http:
        answer = await http.post("/", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (421, "host_not_allowed")


async def test_the_rate_is_counted_by_key_or_address_and_never_for_probes() -> None:
    async with client(Authentication(RateLimit(inner(), per_minute=2), keys=RING)) as http:
        ci, ops = ({"authorization": f"Bearer {key}"} for key in ("secret", "other"))
        assert [(await http.get("/", headers=ci)).status_code for _ in range(3)] == [200, 200, 429]
        limited = await http.get("/", headers=ci)
        assert limited.json()["code"] == "rate_limited"
        assert 1 <= int(limited.headers["retry-after"]) <= 30
        assert (await http.get("/", headers=ops)).status_code == 200
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await http.get(path, headers=ci)).status_code == 200


async def chunks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * 1024


async def test_a_body_up_to_the_limit_passes_and_one_byte_more_does_not() -> None:
    async with client(BodyLimit(inner(), limit=4096)) as http:
        assert (await http.post("/", content=b"x" * 4096)).text == "- 4096"
        assert (await http.post("/", content=chunks(4))).text == "- 4096"
        for content in (b"x" * 4097, chunks(5)):
            answer = await http.post("/", content=content)
            assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_a_declared_length_is_refused_before_anything_is_read() -> None:
    read = 0

    async def receive() -> dict[str, object]:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"", "more_body": False}

    sent: list[dict[str, object]] = []

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-length", b"999999999999")]}
    await BodyLimit(inner(), limit=4096)(scope, receive, send)
    assert sent[0]["status"] == 413
    assert read == 0
