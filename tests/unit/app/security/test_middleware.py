import asyncio
import hashlib

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from app.contracts.errors import HemostatError
from app.problems import response
from app.security.keys import KeyFile
from app.security.limits import TokenBuckets
from app.security.middleware import Authentication, BodyLimit, HostGuard, RateLimit
from app.security.scopes import KEY
from tests.support.keys import bearer, key_line, key_text, write_keys


async def echo(request):
    key = request.scope.get(KEY)
    return PlainTextResponse(f"{key.owner if key else '-'} {len(await request.body())}")


async def on_error(request, error):
    assert isinstance(error, HemostatError)
    return response(request.scope, error)


def inner():
    routes = [
        Route(path, echo, methods=["GET", "POST"])
        for path in ("/", "/livez", "/readyz", "/metrics", "/metrics/targets")
    ]
    return Starlette(routes=routes, exception_handlers={HemostatError: on_error})


def client(app, base_url="http://localhost"):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base_url)


@pytest.fixture
def ring(tmp_path):
    lines = key_line("ci", "read"), key_line("ci", "read", key="next"), key_line("ops", "admin")
    return KeyFile(write_keys(tmp_path / "keys", *lines))


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "Bearer", "Bearer wrong", "Bearer \xff", key_text("ci"), f"Basic {key_text('ci')}"),
        *(f"Bearer {key_text('nobody')}", f"Bearer {key_text('ci')}x"),
    ],
)
async def test_without_a_key_nothing_but_the_probes_answers(header, ring):
    async with client(Authentication(inner(), keys=ring)) as http:
        headers = {} if header is None else {"authorization": header.encode("latin-1")}
        for path in ("/", "/metrics"):
            answer = await http.get(path, headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Bearer, Basic realm=")
            assert answer.json()["code"] == "unauthorized"
        for path in ("/livez", "/readyz"):
            assert (await http.get(path, headers=headers)).text == "- 0"


async def test_a_key_as_the_password_of_a_browser_opens_what_changes_nothing(ring):
    async with client(Authentication(inner(), keys=ring)) as http:
        for name in ("", "anyone", "ci"):
            assert (await http.get("/", auth=(name, key_text("ci")))).text == "ci 0"
        assert (await http.head("/", auth=("", key_text("ci")))).status_code == 200
        posted = await http.post("/", auth=("", key_text("ci")))  # as the form of a foreign page would
        assert (posted.status_code, posted.headers["www-authenticate"]) == (401, "Bearer")
        assert (await http.post("/", headers=bearer("ci"))).status_code == 200
        for password in ("wrong", "", key_text("nobody")):
            assert (await http.get("/", auth=("ci", password))).status_code == 401
        for damaged in ("Basic", "Basic !", "Basic YQ==", f"Basic {key_text('ci')}"):
            assert (await http.get("/", headers={"authorization": damaged})).status_code == 401


async def test_each_key_of_an_owner_names_it(ring):
    async with client(Authentication(inner(), keys=ring)) as http:
        for key, owner in (("ci", "ci"), ("next", "ci"), ("ops", "ops")):
            for path in ("/", "/readyz"):
                headers = {"authorization": f"bearer {key_text(key)}"}
                assert (await http.get(path, headers=headers)).text == f"{owner} 0"


async def test_a_key_that_can_be_guessed_is_refused_though_the_file_holds_it(tmp_path):
    weak, least = "x" * 31, "x" * 32
    lines = [f"ci {hashlib.sha256(key.encode()).hexdigest()} admin\n" for key in (weak, least)]
    async with client(Authentication(inner(), keys=KeyFile(write_keys(tmp_path / "keys", *lines)))) as http:
        answer = await http.get("/", headers={"authorization": f"Bearer {weak}"})
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert "32" in answer.json()["detail"]
        assert (await http.get("/", headers={"authorization": f"Bearer {least}"})).text == "ci 0"


async def test_a_request_whose_key_is_revoked_meanwhile_ends_as_if_its_client_had_left(tmp_path):
    file = write_keys(tmp_path / "keys", key_line("ci", "read"))
    ring = KeyFile(file)
    heard: list[str] = []
    begun = asyncio.Event()

    async def stream(scope, receive, send):
        begun.set()
        heard.append((await receive())["type"])

    async def never():
        await asyncio.Event().wait()
        raise AssertionError

    async def sent(_): ...

    header = bearer("ci")["authorization"].encode()
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"authorization", header)]}
    request = asyncio.create_task(Authentication(stream, keys=ring)(scope, never, sent))
    await begun.wait()
    await asyncio.sleep(1.5)
    assert not heard
    write_keys(file, "# nobody\n")
    async with asyncio.timeout(5):
        await request
    assert heard == ["http.disconnect"]


@pytest.mark.parametrize("name", ["schl\u00fcssel", "pa\u00e0", "\u9375"])
async def test_a_key_may_have_any_characters(name, tmp_path):
    ring = KeyFile(write_keys(tmp_path / "keys", key_line("ci", "read", key=name)))
    key = key_text(name)
    async with client(Authentication(inner(), keys=ring)) as http:
        for spaces in ("", "  "):
            header = f"Bearer {spaces}{key}{spaces}".encode()
            assert (await http.get("/", headers={"authorization": header})).text == "ci 0"


async def test_without_keys_everything_answers_to_the_user_of_this_machine():
    async with client(Authentication(inner(), keys=None)) as http:
        assert (await http.get("/")).text == " 0"


@pytest.mark.parametrize(
    "base_url", ["http://localhost:8321", "http://127.0.0.1", "http://127.0.0.2:1", "http://[::1]:8321"]
)
async def test_this_machine_by_any_of_its_names_is_let_in(base_url):
    async with client(HostGuard(inner(), host="127.0.0.1"), base_url) as http:
        assert (await http.get("/")).status_code == 200
        own = base_url.replace("127.0.0.1", "localhost")
        assert (await http.post("/", headers={"origin": own})).status_code == 200


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
        {"origin": "http://localhost:3000"},
        {"origin": "https://localhost"},
        {"host": "localhost:8321", "origin": "http://localhost"},
        {"host": "localhost:8321", "origin": "http://localhost:8322"},
        {"host": "localhost:8321", "origin": "http://localhost:99999"},
    ],
)
async def test_a_foreign_name_is_turned_away(headers):
    async with client(HostGuard(inner(), host="127.0.0.1")) as http:
        answer = await http.post("/", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (421, "host_not_allowed")


async def test_the_rate_is_counted_by_owner_and_never_for_who_watches(ring):
    limit = RateLimit(inner(), requests=TokenBuckets(2), tokens=None)
    async with client(Authentication(limit, keys=ring)) as http:
        ci, ops = bearer("ci"), bearer("ops")
        keys = ci, bearer("next"), ci
        assert [(await http.get("/", headers=key)).status_code for key in keys] == [200, 200, 429]
        limited = await http.get("/", headers=ci)
        assert limited.json()["code"] == "rate_limited"
        assert 1 <= int(limited.headers["retry-after"]) <= 30
        assert (await http.get("/", headers=ops)).status_code == 200
        for path in ("/livez", "/readyz", "/metrics", "/metrics/targets"):
            assert (await http.get(path, headers=ci)).status_code == 200


async def test_limits_and_what_is_left_are_in_the_headers_and_tokens_count_for_generation(ring):
    tokens = TokenBuckets(1000)
    routes = [Route("/v1/completions", echo, methods=["GET", "POST"]), Route("/", echo)]
    limit = RateLimit(Starlette(routes=routes), requests=TokenBuckets(10), tokens=tokens)
    async with client(Authentication(limit, keys=ring)) as http:

        async def shown(method, path, key):
            answer = await http.request(method, path, headers=bearer(key))
            prefix = "x-ratelimit-"
            told = {name.removeprefix(prefix): text for name, text in answer.headers.items() if name.startswith(prefix)}
            return answer.status_code, told

        assert await shown("GET", "/", "ci") == (200, {"limit-requests": "10", "remaining-requests": "9"})
        assert await shown("POST", "/v1/completions", "ci") == (
            200,
            {"limit-requests": "10", "remaining-requests": "8"} | {"limit-tokens": "1000", "remaining-tokens": "1000"},
        )
        tokens.charge("ci", 1200)
        status, told = await shown("POST", "/v1/completions", "next")  # of the same owner
        assert (status, told["remaining-tokens"], told["remaining-requests"]) == (429, "0", "8")
        assert (await shown("GET", "/v1/completions", "ci"))[0] == 200
        assert (await shown("POST", "/v1/completions", "ops"))[0] == 200


async def chunks(count):
    for _ in range(count):
        yield b"x" * 1024


async def test_a_body_up_to_the_limit_passes_and_one_byte_more_does_not():
    async with client(BodyLimit(inner(), limit=4096)) as http:
        assert (await http.post("/", content=b"x" * 4096)).text == "- 4096"
        assert (await http.post("/", content=chunks(4))).text == "- 4096"
        for content in (b"x" * 4097, chunks(5)):
            answer = await http.post("/", content=content)
            assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_a_declared_length_is_refused_before_anything_is_read():
    read = 0

    async def receive():
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"", "more_body": False}

    sent: list[dict[str, object]] = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-length", b"999999999999")]}
    await BodyLimit(inner(), limit=4096)(scope, receive, send)
    assert sent[0]["status"] == 413
    assert read == 0
