"""The application as a whole: who may call it, what it says of itself, and whether its OpenAPI page tells the truth."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import httpx
import jsonschema
import pytest
from fastapi import FastAPI
from openapi_spec_validator import OpenAPIV31SpecValidator
from prometheus_client.parser import text_string_to_metric_families

from app.contracts.errors import CATALOGUE, ErrorCode
from app.jobs.workers import WorkerInfo, announce
from app.main import create_app
from app.settings import Settings
from tests.integration.app.conftest import Api, Server, compare
from tests.integration.app.jobs.stored import claimed
from tests.support.keys import bearer, key_line, write_keys
from tests.support.tools import tool

JOBS = "/v1/diagnosis/jobs"
METHODS = {"get", "post", "put", "patch", "delete", "head", "options"}


@pytest.fixture
async def guarded(settings: Settings) -> AsyncIterator[tuple[FastAPI, httpx.AsyncClient]]:
    """A service with keys, and a client without one."""
    keys = write_keys(settings.home / "keys", key_line("ci", "admin"))
    app = create_app(settings.model_copy(update={"api_keys_file": keys}))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service.example") as http,
    ):
        yield app, http


def operations(app: FastAPI) -> list[tuple[str, str]]:
    """Every method of every route, the page itself included."""
    found = [
        (method, route.path)
        for route in app.routes
        for method in sorted(getattr(route, "methods", None) or ())
        if hasattr(route, "path")
    ]
    assert ("GET", "/openapi.json") in found
    assert len(found) > 12
    return found


async def test_with_keys_every_route_is_closed_but_the_probes(guarded: tuple[FastAPI, httpx.AsyncClient]) -> None:
    app, http = guarded
    for method, path in [*operations(app), ("GET", "/nowhere"), ("OPTIONS", JOBS)]:
        for headers in ({}, {"authorization": "Bearer wrong"}):
            answer = await http.request(method, path, headers=headers)
            if path in {"/livez", "/readyz"}:
                assert answer.status_code == 200, path
            else:
                assert answer.status_code == 401, (method, path)
                assert answer.headers["www-authenticate"].partition(",")[0] == "Bearer"
                told = {"code": "unauthorized"} if method == "HEAD" else answer.json()
                assert told.get("error", told)["code"] == "unauthorized"  # OpenAI's routes have OpenAI's envelope
    for method, path in operations(app):
        assert (await http.request(method, path, headers=bearer("ci"))).status_code != 401, (method, path)


async def test_a_line_that_cannot_be_read_opens_nothing(guarded: tuple[FastAPI, httpx.AsyncClient]) -> None:
    app, http = guarded
    file = app.state.hemostat.settings.api_keys_file
    write_keys(file, key_line("op", "admin"), "ci by hand\n")
    await asyncio.sleep(5)
    assert (await http.get("/metrics", headers=bearer("ci"))).status_code == 401
    assert "hemostat_api_key_file_faults 1.0\n" in (await http.get("/metrics", headers=bearer("op"))).text
    file.unlink()
    await asyncio.sleep(5)
    for method, path in operations(app):
        answer = await http.request(method, path, headers=bearer("op"))
        assert path in {"/livez", "/readyz"} or answer.status_code == 401, path


async def test_readiness_shows_a_stranger_what_fails_alone(guarded: tuple[FastAPI, httpx.AsyncClient]) -> None:
    app, http = guarded
    await announce(app.state.hemostat.redis, WorkerInfo(id="w1", host="inner-name"))
    stranger = await http.get("/readyz")
    assert stranger.json()["checks"]["models"] == {"ok": True, "detail": ""}
    assert "inner-name" not in stranger.text
    assert (stranger.json()["instance"], stranger.json()["home"], stranger.json()["models"]) == (None, None, [])
    known = await http.get("/readyz", headers=bearer("ci"))
    assert known.json()["home"] == str(app.state.hemostat.settings.home)
    assert known.json()["models"][0]["alias"] == "tiny"
    assert known.json()["workers"][0]["host"] == "inner-name"
    app.state.hemostat.settings.models_file.write_text("[models.x")
    broken = await http.get("/readyz")
    assert broken.status_code == 503
    assert "models" in broken.json()["detail"]
    assert str(app.state.hemostat.settings.home) not in broken.text


def test_a_client_does_not_choose_the_address_that_it_is_counted_by(server: Server) -> None:
    server.start(HEMOSTAT_REQUESTS_PER_MINUTE="4")
    answers = [
        httpx.get(f"{server.url}/errors/internal", headers={"x-forwarded-for": f"203.0.113.{number}"}).status_code
        for number in range(6)
    ]
    assert answers[-1] == 429, answers


async def test_every_error_type_leads_somewhere(api: Api) -> None:
    for code in ErrorCode:
        answer = await api.http.get(f"/errors/{code.value}")
        assert answer.json()["title"] == CATALOGUE[code].title
    wrong = await api.http.get("/errors/quue_full")
    assert wrong.status_code == 404
    assert "queue_full" in wrong.json()["hint"]


# --- health and metrics


@pytest.mark.parametrize(
    ("content", "code", "cure"),
    [
        (None, "unknown_model", "`hemostat models add"),
        ("[models.tiny\n", "models_file_invalid", "correct that line"),
        ("[models.tiny]\npath = 3\n", "models_file_invalid", ""),
    ],
)
async def test_a_bad_models_file_is_named_and_mended_at_once(
    api: Api, content: str | None, code: str, cure: str
) -> None:
    file = api.state.settings.models_file
    good = file.read_text()
    file.unlink() if content is None else file.write_text(content)
    answer = await api.http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["models"]["ok"] is False
    assert answer.json()["checks"]["redis"]["ok"] is True
    assert cure in answer.json()["hint"]
    submitted = await api.http.post(JOBS, json=compare())
    assert submitted.json()["code"] == code
    file.write_text(good)
    assert (await api.http.get("/readyz")).status_code == 200


async def test_metrics_of_a_busy_service_please_promtool_and_quote_nobody(api: Api) -> None:
    job_id = await api.submit(metadata={"who": "my-secret"})
    await api.http.post(JOBS, json=compare(kind="my-secret"))
    await api.http.get(f"/my-secret/{job_id}?q=my-secret")
    await api.http.get(f"{JOBS}/{job_id}", headers={"x-request-id": "my-secret"})
    await claimed(api.state.store, job_id, "my-secret-worker")
    answer = await api.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "my-secret" not in answer.text
    assert job_id not in answer.text
    samples = {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["hemostat_jobs", "running"] == 1
    assert samples["hemostat_job_queue_depth",] == 0
    assert samples["hemostat_jobs_submitted_total", "compare", "created"] == 1
    assert samples["hemostat_jobs_submitted_total", "other", "refused"] == 1
    assert samples["hemostat_http_requests_total", "POST", JOBS, "202"] == 1
    assert samples["hemostat_http_requests_total", "GET", "unmatched", "404"] == 1
    command = [tool("promtool"), "check", "metrics"]
    done = await asyncio.to_thread(subprocess.run, command, input=answer.content, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


# --- the OpenAPI page


@pytest.fixture
def page(settings: Settings) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(json.dumps(create_app(settings).openapi()))
    return made


def test_the_page_is_valid_and_covers_every_route(page: dict[str, Any], settings: Settings) -> None:
    OpenAPIV31SpecValidator(page).validate()
    listed = {(method.upper(), path) for path, item in page["paths"].items() for method in item if method in METHODS}
    ours = {(method, path) for method, path in operations(create_app(settings)) if path != "/openapi.json"}
    assert listed == {(method, path) for method, path in ours if method != "HEAD"}
    identifiers = [item[method]["operationId"] for item in page["paths"].values() for method in item]
    assert len(set(identifiers)) == len(identifiers)


def test_every_status_of_every_operation_has_an_example_that_fits_its_schema(page: dict[str, Any]) -> None:
    seen = 0
    for path, item in page["paths"].items():
        for method, operation in item.items():
            for status, answer in operation["responses"].items():
                if status in {"204", "304"}:
                    assert "content" not in answer
                    continue
                for media_type, content in answer["content"].items():
                    examples = [content["example"]] if "example" in content else []
                    examples += [example["value"] for example in content.get("examples", {}).values()]
                    assert examples, (path, method, status, media_type)
                    for example in examples:
                        jsonschema.validate(example, content["schema"] | {"components": page["components"]})
                        seen += 1
                        if media_type == "application/problem+json":
                            assert str(example["status"]) == status
    assert seen > 80
    body = page["paths"][JOBS]["post"]["requestBody"]["content"]["application/json"]
    for example in body["examples"].values():
        jsonschema.validate(example["value"], body["schema"] | {"components": page["components"]})
