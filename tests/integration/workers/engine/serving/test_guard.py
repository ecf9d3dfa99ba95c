"""vLLM's own application, made with the arguments of a guarded replica; no engine stands behind it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.routing import BaseRoute, Mount, Route
from starlette.testclient import TestClient

from app.deployments.secret import headers_for, new_secret
from app.files import write_atomically
from app.models.checkpoint import inspect
from app.settings import Settings
from workers.engine.isolation import quiet_vllm
from workers.engine.serving.arguments import ServerPlan, server_arguments
from workers.engine.serving.config import OPEN, VARIABLE, Guard, ServingConfig

SECRET = new_secret()


@pytest.fixture
def config(tmp_path: Path) -> ServingConfig:
    made = ServingConfig(
        deployment="shared",
        architecture="LlamaForCausalLM",
        profiles=tmp_path,
        versions_file=tmp_path / "versions.json",
        hidden=tmp_path,
        door_host="0.0.0.0",
        door_file=tmp_path / "door.port",
        secret=SECRET,
    )
    file = tmp_path / "serving.json"
    write_atomically(file, made.model_dump_json().encode(), mode=0o600)
    return made


def paths(routes: list[BaseRoute]) -> Iterator[tuple[str, str]]:
    for route in routes:
        if isinstance(route, Route):
            yield from ((method, route.path) for method in route.methods or ())
        elif isinstance(route, Mount):
            yield "GET", f"{route.path}/"


@pytest.mark.usefixtures("config")
def test_every_route_of_vllms_server_asks_for_the_secret(
    tiny: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = inspect(tiny("llama"))
    plan = ServerPlan("shared", info, info.path, "bfloat16", "cpu", "0.0.0.0", 1, 64, 1 << 20, guarded=True)
    with quiet_vllm():
        from vllm.entrypoints.launchers.app import build_app
        from vllm.entrypoints.launchers.cli_args import make_arg_parser
        from vllm.utils.argparse_utils import FlexibleArgumentParser

        arguments = make_arg_parser(FlexibleArgumentParser()).parse_args(server_arguments(plan, Settings()))
        monkeypatch.setenv(VARIABLE, str(tmp_path / "serving.json"))  # the plugin reads it too
        app = build_app(arguments, ("generate",))
    client = TestClient(app, raise_server_exceptions=False)
    found = set(paths(app.routes))
    assert {("POST", "/v1/completions"), ("POST", "/tokenize"), ("POST", "/invocations"), ("GET", "/health")} <= found
    for method, path in found:
        if method == "GET" and path in OPEN:
            continue
        for given in ({}, headers_for("guess")):
            assert client.request(method, path, json={}, headers=given).status_code == 401, (method, path)
    assert client.post("/nowhere").status_code == 401
    assert client.get("/openapi.json", headers=headers_for(SECRET)).status_code == 200
    assert client.get("/metrics/").status_code == 200


def test_what_others_can_reach_is_not_configured_without_a_secret(config: ServingConfig) -> None:
    with pytest.raises(ValueError, match="needs a secret"):
        ServingConfig.model_validate(config.model_dump() | {"secret": ""})


def test_a_guard_without_a_secret_lets_no_server_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(ValueError, match="no secret"):
        Guard(lambda *_: None)  # type: ignore[arg-type, return-value]
