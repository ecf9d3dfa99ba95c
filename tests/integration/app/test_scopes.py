"""Who may do what: every route with a key of every scope, and whose jobs a key sees."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx
import pytest
from fastapi import Depends, FastAPI
from starlette.routing import Route

from app.deployments.report import AgentReport
from app.main import create_app
from app.models import looking
from app.security.audit import audit_file
from app.security.scopes import Needs, Scope, check_routes
from app.settings import Settings
from tests.integration.app.conftest import compare
from tests.integration.app.deployments.asking import FIRST
from tests.support.keys import bearer, key_line, write_keys
from tests.support.profiles import low_rank, record
from workers.calibration.profiles import ProfileStore

JOBS = "/v1/diagnosis/jobs"
JOB = JOBS + "/{job_id}"
DEPLOYMENTS = "/v1/deployments"
DEPLOYMENT = DEPLOYMENTS + "/{deployment}"
PROFILES = "/v1/calibration/profiles"
STORED = "/v1/responses/{response_id}"
ANY_KEY = "any key"
NO_KEY = "no key"

TABLE: Final = {
    NO_KEY: {("GET", "/livez"), ("HEAD", "/livez"), ("GET", "/readyz"), ("HEAD", "/readyz")},
    ANY_KEY: {("GET", "/openapi.json"), ("HEAD", "/openapi.json"), ("GET", "/errors/{code}")},
    Scope.INFERENCE: {
        *(("GET", "/v1/models"), ("GET", "/v1/models/{model}")),
        *(("POST", path) for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses")),
        *(("POST", path) for path in ("/tokenize", "/detokenize", STORED + "/cancel")),
        *(("GET", STORED), ("DELETE", STORED), ("GET", STORED + "/input_items")),
    },
    Scope.DIAGNOSE: {("POST", JOBS), ("POST", JOB + "/cancel"), ("DELETE", JOB)},
    Scope.READ: {
        ("GET", "/"),
        *(("GET", JOB + tail) for tail in ("", "/queue", "/events", "/report", "/artifacts", "/artifacts/{name}")),
        *(("GET", path) for path in (JOBS, "/v1/diagnosis/diff", "/v1/diagnosis/schemas/report")),
        *(("GET", path) for path in (DEPLOYMENTS, DEPLOYMENT, DEPLOYMENT + "/events")),
        *(("GET", PROFILES + tail) for tail in ("", "/{version}")),
    },
    Scope.DEPLOY: {
        *(("POST", DEPLOYMENTS), ("PATCH", DEPLOYMENT), ("DELETE", DEPLOYMENT)),
        *(("POST", f"{DEPLOYMENT}/{verb}") for verb in ("promote", "rollback", "freeze", "unfreeze")),
        ("DELETE", PROFILES + "/{version}"),
    },
    Scope.METRICS: {("GET", "/metrics"), ("GET", "/metrics/targets")},
    Scope.ADMIN: set(),
}


@pytest.fixture
def keyed(settings: Settings) -> FastAPI:
    """A service with one key for each scope, and three owners with several."""
    lines = [key_line(scope, scope) for scope in Scope]
    lines += [key_line(owner, "diagnose,read") for owner in ("ann", "bob")]
    lines += [key_line("ann", "diagnose,read", key="ann-next"), key_line("both", "diagnose,deploy,read")]
    write_keys(settings.home / "keys", *lines)
    return create_app(settings.model_copy(update={"api_keys_file": settings.home / "keys"}))


@pytest.fixture
async def http(keyed: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        keyed.router.lifespan_context(keyed),
        httpx.AsyncClient(transport=httpx.ASGITransport(keyed), base_url="http://service.example") as client,
    ):
        yield client


def operations(app: FastAPI) -> set[tuple[str, str]]:
    return {(method, route.path) for route in app.routes if isinstance(route, Route) for method in route.methods or ()}


def test_the_table_names_every_route_once(keyed: FastAPI) -> None:
    named = [one for routes in TABLE.values() for one in routes]
    assert len(set(named)) == len(named)
    assert set(named) == operations(keyed)


@pytest.mark.parametrize("scope", Scope)
async def test_a_key_may_do_what_its_scope_says_alone(scope: Scope, keyed: FastAPI, http: httpx.AsyncClient) -> None:
    allowed = TABLE[NO_KEY] | TABLE[ANY_KEY] | (operations(keyed) if scope is Scope.ADMIN else TABLE[scope])
    for method, path in sorted(operations(keyed)):
        read: list[int] = []

        async def body(read: list[int] = read) -> AsyncIterator[bytes]:
            read.append(1)
            yield b"{"

        headers = bearer(scope) | {"content-type": "application/json"}
        answer = await http.request(method, path, headers=headers, content=body() if method != "GET" else None)
        if (method, path) in allowed:
            assert answer.status_code not in {401, 403}, (method, path)
            continue
        assert answer.status_code == 403, (method, path)
        told = answer.json()
        assert told.get("error", told)["code"] == "not_permitted"
        assert not read, (method, path)


@pytest.mark.parametrize(("scope", "told"), [*((scope, scope in {"read", "admin"}) for scope in Scope)])
async def test_readiness_shows_its_details_to_readers(scope: Scope, told: bool, http: httpx.AsyncClient) -> None:
    answer = (await http.get("/readyz", headers=bearer(scope))).json()
    assert bool(answer["checks"]["models"]["detail"]) is told


async def test_a_job_that_changes_a_deployment_needs_the_scope_of_deployments(http: httpx.AsyncClient) -> None:
    asked = compare(kind="calibrate", deployment="none") | {"text": {"source": "shipped"}}
    codes = [(await http.post(JOBS, json=asked, headers=bearer(owner))).json()["code"] for owner in ("ann", "both")]
    assert codes == ["not_permitted", "deployment_not_found"]


def test_a_route_without_a_scope_does_not_start() -> None:
    app = FastAPI()

    @app.get("/open", dependencies=[Depends(Needs(None))])
    async def known() -> None: ...

    check_routes([route for route in app.routes if getattr(route, "path", "") == "/open"])

    @app.get("/forgotten")
    async def forgotten() -> None: ...

    with pytest.raises(RuntimeError, match="/forgotten"):
        check_routes([route for route in app.routes if getattr(route, "path", "") in {"/open", "/forgotten"}])


# --- whose jobs


async def submit(http: httpx.AsyncClient, key: str, **changes: Any) -> str:
    answer = await http.post(JOBS, json=compare(**changes), headers=bearer(key))
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def listed(http: httpx.AsyncClient, key: str, query: str = "") -> list[str]:
    answer = await http.get(f"{JOBS}?{query}", headers=bearer(key))
    return [job["id"] for job in answer.json()["data"]]


async def test_a_job_is_its_owners_whichever_of_their_keys_asks(http: httpx.AsyncClient) -> None:
    mine = await submit(http, "ann")
    for key, status in (("ann", 200), ("ann-next", 200), ("bob", 404), ("admin", 200)):
        for tail in ("", "/queue"):
            answer = await http.get(f"{JOBS}/{mine}{tail}", headers=bearer(key))
            assert answer.status_code == status, (key, tail)
    for tail in ("/report", "/artifacts", "/artifacts/tokens.parquet", "/events"):
        answer = await http.get(f"{JOBS}/{mine}{tail}", headers=bearer("bob"))
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
    assert (await http.post(f"{JOBS}/{mine}/cancel", headers=bearer("bob"))).status_code == 404
    assert (await http.get(f"{JOBS}/{mine}", headers=bearer("ann"))).json()["status"] == "queued"
    assert (await http.post(f"{JOBS}/{mine}/cancel", headers=bearer("ann-next"))).json()["status"] == "cancelled"
    assert (await http.delete(f"{JOBS}/{mine}", headers=bearer("bob"))).status_code == 404
    other = await submit(http, "bob")
    diff = await http.get(f"/v1/diagnosis/diff?job={mine}&job={other}", headers=bearer("bob"))
    assert (diff.status_code, diff.json()["code"]) == (404, "job_not_found")
    assert (await http.delete(f"{JOBS}/{mine}", headers=bearer("ann"))).status_code == 204


async def test_lists_hold_ones_own_jobs_and_an_administrators_all(http: httpx.AsyncClient) -> None:
    first, other, second = [await submit(http, owner) for owner in ("ann", "bob", "ann")]
    await http.post(f"{JOBS}/{first}/cancel", headers=bearer("ann"))
    assert await listed(http, "ann") == [second, first]
    assert await listed(http, "bob") == [other]
    assert await listed(http, "read") == []
    assert await listed(http, "admin") == [second, other, first]
    assert await listed(http, "ann", "status=queued") == [second]
    assert await listed(http, "bob", "status=cancelled") == []
    assert await listed(http, "ann", "limit=1") == [second]
    assert await listed(http, "ann", f"limit=1&after={second}") == [first]
    assert await listed(http, "ann", f"limit=1&before={first}") == [second]
    page = (await http.get("/", headers=bearer("bob"))).text
    assert other in page
    assert first not in page
    await http.delete(f"{JOBS}/{first}", headers=bearer("ann"))
    assert await listed(http, "ann") == [second]


async def test_who_waits_sees_how_many_are_before_it_and_no_job_of_others(http: httpx.AsyncClient) -> None:
    await submit(http, "bob", metadata={"whose": "bob"})
    mine = await submit(http, "ann")
    queue = await http.get(f"{JOBS}/{mine}/queue", headers=bearer("ann"))
    assert (queue.json()["before"], queue.json()["first"]) == (1, None)
    assert "bob" not in (await http.get(f"{JOBS}/{mine}?format=html", headers=bearer("ann"))).text


async def test_a_profile_is_its_jobs_owners_unless_deployed(http: httpx.AsyncClient, settings: Settings) -> None:
    mine = await submit(http, "ann")
    store = ProfileStore(settings)
    own = store.put(low_rank(), record(job=mine)).version
    served = store.put(low_rank(seed=1), record(job=mine, deployment="bot")).version
    for key, seen in (("ann", True), ("ann-next", True), ("bob", False), ("both", True), ("admin", True)):
        page = (await http.get(PROFILES, headers=bearer(key))).json()
        assert {profile["version"] for profile in page["data"]} == ({own, served} if seen else {served}), key
        for version, status in ((own, 200 if seen else 404), (served, 200)):
            answer = await http.get(f"{PROFILES}/{version}", headers=bearer(key))
            assert answer.status_code == status, (key, version)
    await http.post(f"{JOBS}/{mine}/cancel", headers=bearer("ann"))
    await http.delete(f"{JOBS}/{mine}", headers=bearer("ann"))
    assert (await http.get(f"{PROFILES}/{own}", headers=bearer("ann"))).status_code == 404
    assert (await http.get(f"{PROFILES}/{own}", headers=bearer("both"))).status_code == 200


async def test_an_idempotency_key_belongs_to_its_owner(http: httpx.AsyncClient) -> None:
    made = []
    for key in ("ann", "bob", "ann-next"):
        headers = bearer(key) | {"idempotency-key": "k"}
        made.append((await http.post(JOBS, json=compare(), headers=headers)).json()["id"])
    assert made[0] == made[2] != made[1]


async def test_an_owner_at_the_limit_of_waiting_jobs_is_refused_and_others_are_not(settings: Settings) -> None:
    keys = write_keys(settings.home / "keys", *(key_line(owner, "diagnose") for owner in ("ann", "bob")))
    app = create_app(settings.model_copy(update={"api_keys_file": keys, "owner_max_queued_jobs": 2}))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service.example") as http,
    ):
        ids = [await submit(http, "ann") for _ in range(2)]
        refused = await http.post(JOBS, json=compare(), headers=bearer("ann"))
        assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
        assert int(refused.headers["retry-after"]) > 0
        await submit(http, "bob")
        store = app.state.hemostat.store
        claim = await store.claim(ids[0], "worker")
        await submit(http, "ann")  # one runs, two wait
        assert await store.release(ids[0], claim.attempt)  # three wait now
        for job in ids:
            assert (await http.post(JOBS, json=compare(), headers=bearer("ann"))).status_code == 429
            await http.post(f"{JOBS}/{job}/cancel", headers=bearer("ann"))
        await submit(http, "ann")
        waiting = {owner: len(line) for owner, line in (await store.lines()).items()}
        assert waiting == {"ann": 2, "bob": 1}


async def test_an_owner_whose_models_are_looked_into_delays_no_other(http: httpx.AsyncClient) -> None:
    async with looking._line.place("ann"):
        mine = [
            asyncio.create_task(http.post(JOBS, json=compare(dry_run=dry), headers=bearer("ann")))
            for dry in (False, True)
        ]
        await submit(http, "bob")
        assert not any(task.done() for task in mine)
    assert {answer.status_code for answer in await asyncio.gather(*mine)} == {200, 202}


# --- who did what


async def test_each_change_is_recorded_with_who_what_and_which(
    http: httpx.AsyncClient, keyed: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    settings = keyed.state.hemostat.settings
    with caplog.at_level(logging.INFO, logger="hemostat.http"):
        asked, once = compare(metadata={"note": "my-secret"}), {"idempotency-key": "k"}
        answers = [await http.post(JOBS, json=asked, headers=bearer("ann") | once) for _ in range(2)]
        job = answers[0].json()["id"]
        for number in (1, 2):
            headers = bearer("ann-next") | {"x-request-id": f"r{number}"}
            assert (await http.post(f"{JOBS}/{job}/cancel", headers=headers)).status_code == 200
        await http.delete(f"{JOBS}/{job}", headers=bearer("admin"))
        wanted = {"name": "mine", "model": {"model": "tiny"}, "reference": {"model": "tiny"}, "calibration": "off"}
        answers += [await http.post(DEPLOYMENTS, json=wanted, headers=bearer("deploy") | once) for _ in range(2)]
        assert [answer.headers.get("idempotency-replayed") for answer in answers] == [None, "true"] * 2
        made = answers[2].json()["id"]
        store, mine = keyed.state.hemostat.deployments, f"{DEPLOYMENTS}/mine"
        await store.report(made, AgentReport(processes=1))  # so that DELETE leaves it, draining
        asks = [("PATCH", "", {"shadow_rate": 0.5}), ("PATCH", "", {"calibration": "frozen"})]
        asks += [("POST", "/promote", {"version": "identity"}), ("POST", "/rollback", None)]
        asks += [("POST", "/unfreeze", None), ("POST", "/freeze", None), ("DELETE", "", None)]
        for method, path, changes in asks:
            if path in ("/promote", "/rollback"):
                await store.promote(made, FIRST, reason="by hand", manual=True)
            for _ in range(2):  # the second one changes nothing
                answer = await http.request(method, mine + path, json=changes, headers=bearer("deploy"))
                assert answer.status_code in (200, 202), answer.text
        await store.report(made, AgentReport(processes=0))
        # Nothing of these changes anything.
        await http.post(JOBS, json=compare(dry_run=True), headers=bearer("ann"))
        await http.post(JOBS, json=compare(kind="x"), headers=bearer("ann"))
        await http.delete(f"{JOBS}/{job}", headers=bearer("ann"))
        await http.delete(f"{DEPLOYMENTS}/mine", headers=bearer("ann"))
        await http.post("/v1/completions", json={"model": "mine", "prompt": "my-secret"}, headers=bearer("inference"))
        await http.get(JOBS, headers=bearer("ann"))
    text = audit_file(settings.home).read_text()
    found = [json.loads(line) for line in text.splitlines()]
    assert [(line["owner"], line["action"], line["object"]) for line in found] == [
        ("ann", f"POST {JOBS}", job),
        ("ann", f"POST {JOB}/cancel", job),
        ("admin", f"DELETE {JOB}", job),
        ("deploy", f"POST {DEPLOYMENTS}", made),
        *(("deploy", f"{method} {DEPLOYMENT}{path}", "mine") for method, path, _ in asks),
    ]
    assert found[0]["key"] != found[1]["key"]
    assert found[1]["request_id"] == "r1"
    assert {line["address"] for line in found} == {"127.0.0.1"}
    assert "my-secret" not in text
    told = [entry.getMessage() for entry in caplog.records if entry.name == "hemostat.http"]
    assert told[0].endswith(f"ann:{found[0]['key']}")
    metrics = (await http.get("/metrics", headers=bearer("metrics"))).text
    assert 'hemostat_owner_requests_total{owner="ann",status="202"} 2.0' in metrics
    assert 'hemostat_owner_requests_total{owner="ann",status="403"} 1.0' in metrics


async def test_an_unreadable_job_of_another_owner_is_not_there_either(http: httpx.AsyncClient, keyed: FastAPI) -> None:
    mine = await submit(http, "ann")
    await keyed.state.hemostat.redis.hset(f"hemostat-jobs:job:{mine}", "metadata", "of another version")
    assert (await http.get(f"{JOBS}/{mine}", headers=bearer("ann"))).json()["code"] == "job_unreadable"
    assert (await http.get(f"{JOBS}/{mine}", headers=bearer("bob"))).json()["code"] == "job_not_found"
    for _ in range(2):
        await http.post(f"{JOBS}/{mine}/cancel", headers=bearer("bob"))
        assert (await http.delete(f"{JOBS}/{mine}", headers=bearer("bob"))).json()["code"] == "job_not_found"
    await http.post(f"{JOBS}/{mine}/cancel", headers=bearer("ann"))
    assert (await http.delete(f"{JOBS}/{mine}", headers=bearer("ann"))).status_code == 204


async def test_a_list_reads_no_job_of_others(http: httpx.AsyncClient, keyed: FastAPI) -> None:
    for _ in range(30):
        await submit(http, "bob", metadata={"team": "red"})
    mine = await submit(http, "ann", metadata={"team": "red"})
    redis = keyed.state.hemostat.redis
    before = (await redis.info("commandstats"))["cmdstat_hmget"]["calls"]
    assert await listed(http, "ann", "metadata=team=red&status=queued") == [mine]
    after = (await redis.info("commandstats"))["cmdstat_hmget"]["calls"]
    assert after - before < 10
