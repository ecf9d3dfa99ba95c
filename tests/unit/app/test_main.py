"""What the application answers without any Redis."""

import httpx
import pytest
from starlette.types import Message

from app.main import create_app
from app.settings import Settings
from tests.support.html import tree

JOBS = "/v1/diagnosis/jobs"


@pytest.fixture
async def http(tmp_path):
    app = create_app(Settings(home=tmp_path))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        yield client
    await app.state.hemostat.redis.aclose()


async def test_the_process_is_alive_and_names_what_is_missing(http):
    assert (await http.get("/livez")).json() == {"status": "alive"}
    ready = await http.get("/readyz")
    assert ready.status_code == 503
    assert {name: check["ok"] for name, check in ready.json()["checks"].items()} == {
        "api": True,
        "redis": False,
        "models": False,
    }
    assert "models.toml" in ready.json()["checks"]["models"]["detail"]


@pytest.mark.parametrize(("aliases", "told"), [(["one"], "1 model: one"), (["one", "two"], "2 models: one, two")])
async def test_readiness_counts_and_names_the_models(http, tmp_path, aliases, told):
    tables = [f'[models.{alias}]\npath = "{tmp_path}"\n' for alias in aliases]
    (tmp_path / "models.toml").write_text("".join(tables))
    check = (await http.get("/readyz")).json()["checks"]["models"]
    assert check == {"ok": True, "detail": told}


async def test_the_root_leads_on_also_while_redis_is_away(http):
    answer = await http.get("/")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "form-action 'none'" in answer.headers["content-security-policy"]
    root = tree(answer.text)
    assert root.one(class_="alert").text == "Redis does not answer: jobs and deployments cannot be listed."
    links = [str(a.attributes["href"]) for a in root.one(id_="places").all("a")]
    assert {JOBS, "/openapi.json", "/metrics", "/readyz"} < set(links)
    assert [link for link in links if (await http.get(link)).status_code == 404] == []


async def test_probes_may_ask_for_the_head_alone(http):
    assert (await http.head("/livez")).status_code == 200
    assert (await http.head("/readyz")).status_code == 503


@pytest.mark.parametrize("path", [JOBS, "/v1/deployments", "/v1/completions"])
async def test_who_leaves_in_the_middle_of_a_body_is_no_failure_of_the_service(tmp_path, caplog, path):
    app = create_app(Settings(home=tmp_path))
    coming: list[Message] = [{"type": "http.request", "body": b'{"na', "more_body": True}, {"type": "http.disconnect"}]
    sent: list[Message] = []

    async def receive():
        return coming.pop(0) if len(coming) > 1 else coming[0]

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b"", "client": None}
    await app(scope, receive, send)
    assert [message["status"] for message in sent if message["type"] == "http.response.start"] == [499]
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
    await app.state.hemostat.redis.aclose()


async def test_a_request_that_needs_redis_is_a_503(http):
    for path in (JOBS, f"{JOBS}/diag_01M89D9HJWGEE9A2EB6NKQX32W", f"{JOBS}/diag_01M89D9HJWGEE9A2EB6NKQX32W/events"):
        answer = await http.get(path)
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert int(answer.headers["retry-after"]) > 0


async def test_what_is_wrong_with_the_request_is_said_without_redis(http):
    for body, code in ((b"{", "invalid_json"), (b"{}", "invalid_request"), (b'{"kindd": 1}', "unknown_field")):
        answer = await http.post(JOBS, content=body, headers={"content-type": "application/json"})
        assert answer.json()["code"] == code
        assert answer.json()["errors" if code != "invalid_json" else "code"]
    assert (await http.get(f"{JOBS}?limit=0")).json()["errors"][0]["parameter"] == "limit"
    assert (await http.get(f"{JOBS}/not-an-id")).json()["code"] == "job_not_found"


async def test_an_id_that_cannot_be_one_is_named_in_the_answer(http):
    for method, path in (("GET", ""), ("POST", "/cancel"), ("DELETE", ""), ("GET", "/report")):
        answer = (await http.request(method, f"{JOBS}/diag_01%E2%80%AE{path}")).json()
        assert answer["detail"] == "There is no job 'diag_01\\u202e': that is not a job's id."
        assert "`hemostat jobs list`" in answer["hint"]
    assert len((await http.get(f"{JOBS}/{'x' * 5000}")).json()["detail"]) < 150


async def test_unknown_routes_and_methods(http):
    missing = await http.get("/v1/diagnosys/jobs")
    assert (missing.status_code, missing.json()["hint"]) == (404, f"Did you mean {JOBS}?")
    wrong = await http.patch(f"{JOBS}/diag_01M89D9HJWGEE9A2EB6NKQX32W")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "DELETE, GET")
    assert (await http.get("/docs")).status_code == 404, "pages that load scripts from elsewhere are off"
