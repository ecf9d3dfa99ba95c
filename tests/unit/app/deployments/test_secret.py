"""The internal secret: who has it passes, on every path but those that are named, and nobody is told it."""

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from app.contracts.deployment import Deployment, DeploymentRequest, Replica
from app.deployments.record import read_deployment, request_fields
from app.deployments.secret import SecretGuard, admits, headers_for, new_secret

SECRET = new_secret()


@pytest.fixture
def guarded():
    async def answer(_):
        return PlainTextResponse("in")

    async def talk(socket):
        await socket.accept()
        await socket.send_text("in")
        await socket.close()

    inner = Starlette(
        routes=[
            Route("/health", answer, methods=["GET", "POST"]),
            Route("/v1/completions", answer, methods=["POST", "OPTIONS"]),
            WebSocketRoute("/realtime", talk),
            Mount("/metrics", Starlette(routes=[Route("/", answer), Route("/deep", answer)])),
        ]
    )
    return TestClient(SecretGuard(inner, secret=SECRET, without=frozenset({"/health", "/metrics/"})))


def test_secrets_are_long_and_never_the_same():
    made = {new_secret() for _ in range(1000)}
    assert len(made) == 1000
    assert min(map(len, made)) == 43  # 256 bits in base 64


@pytest.mark.parametrize(
    "given",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {SECRET[:-1]}",
        f"Bearer {SECRET}x",
        f"Basic {SECRET}",
        SECRET,
        f"Bearer {SECRET.swapcase()}",
        "Bearer \udcff",
    ],
    ids=["nothing", "scheme", "blank", "short", "long", "another scheme", "bare", "another case", "no text"],
)
def test_what_is_not_the_secret_is_not_admitted(given):
    assert not admits(SECRET, given)


def test_the_secret_is_admitted_and_an_empty_one_admits_nobody():
    assert admits(SECRET, headers_for(SECRET)["authorization"])
    assert admits(SECRET, f"bearer  {SECRET} ")
    assert headers_for("") == {}
    assert not admits("", "Bearer ")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/completions"),
        ("OPTIONS", "/v1/completions"),
        ("POST", "/health"),
        ("GET", "/health/"),
        ("GET", "//health"),
        ("GET", "/metrics/deep"),
        ("GET", "/metrics/../v1/completions"),
        ("GET", "/nowhere"),
    ],
)
def test_without_the_secret_all_but_the_named_paths_are_closed(guarded, method, path):
    url = f"http://testserver{path}"
    assert guarded.request(method, url).status_code == 401
    assert guarded.request(method, url, headers=headers_for("guess")).status_code == 401
    assert guarded.request(method, url, headers=headers_for(SECRET)).status_code != 401


def test_named_paths_are_open(guarded):
    assert guarded.get("/health").text == "in"
    assert guarded.get("/metrics/").text == "in"
    assert guarded.post("/v1/completions", headers=headers_for(SECRET)).text == "in"


def test_a_header_that_is_sent_twice_does_not_pass(guarded):
    twice = [("authorization", "Bearer guess"), ("authorization", f"Bearer {SECRET}")]
    assert guarded.post("/v1/completions", headers=twice).status_code == 401


def test_a_websocket_is_refused(guarded):
    with pytest.raises(WebSocketDisconnect) as refused, guarded.websocket_connect("/realtime"):
        pass
    assert refused.value.code == 1008
    with guarded.websocket_connect("/realtime", headers=headers_for(SECRET)) as socket:
        assert socket.receive_text() == "in"


def test_no_answer_and_no_schema_holds_it():
    replica = Replica(id="serve-0", secret=SECRET)
    asked = DeploymentRequest.model_validate({"name": "a", "model": {"model": "m"}, "reference": {"model": "m"}})
    times = {"created_at": "0", "updated_at": "0"}
    shown: Any = read_deployment(request_fields("dep_1", asked) | times, (replica,))
    assert shown.running[0].secret == SECRET
    for told in (shown.model_dump_json(), str(shown.model_dump()), repr(shown), str(replica)):
        assert SECRET not in told
    for mode in ("serialization", "validation"):
        assert "secret" not in Deployment.model_json_schema(mode=mode)["$defs"]["Replica"]["properties"]
