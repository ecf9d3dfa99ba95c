"""Deployments over HTTP, against a real Valkey."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis.exceptions import ConnectionError as RedisConnectionError

from app.contracts.deployment import DeploymentState, ShadowSample
from app.contracts.errors import ErrorCode
from app.contracts.job import job_error
from app.deployments import service
from app.deployments.report import AgentReport
from app.jobs import queue
from app.jobs.reconcile import hand_over
from app.main import create_app
from app.settings import Settings
from tests.integration.app.conftest import Api
from tests.integration.app.deployments.conftest import replica
from tests.integration.app.jobs.stored import claimed
from tests.support.calibration_reports import calibrate_report
from workers.process.tasks import cancel

PATH = "/v1/deployments"
ABSENT = "cal-" + "0" * 16
GPTQ = {
    "type": "quantize.gptq",
    "bits": 4,
    "group_size": 64,
    "calibration_windows": 1,
    "calibration_window": 64,
    "calibration": {"source": "inline", "documents": [{"id": "one", "text": "Private words. " * 400}]},
}


def body(**changes: Any) -> dict[str, Any]:
    return {
        "name": "tiny-rtn4",
        "model": {"model": "tiny", "recipe": [{"type": "quantize.rtn", "bits": 4, "group_size": 64}]},
        "reference": {"model": "tiny"},
    } | changes


async def create(api: Api, **changes: Any) -> dict[str, Any]:
    answer = await api.http.post(PATH, json=body(**changes))
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"{PATH}/{answer.json()['id']}"
    made: dict[str, Any] = answer.json()
    return made


async def kinds(api: Api, name: str = "tiny-rtn4") -> list[str]:
    page = (await api.http.get(f"{PATH}/{name}/events")).json()
    return [event["type"] for event in page["data"]]


async def test_a_deployment_is_made_shown_changed_and_deleted(api: Api) -> None:
    made = await create(api, replicas=1, metadata={"team": "a"})
    assert (made["state"], made["active_version"]) == ("starting", "identity")
    for name in ("tiny-rtn4", made["id"]):
        assert (await api.http.get(f"{PATH}/{name}")).json()["metadata"] == {"team": "a"}
    assert [one["id"] for one in (await api.http.get(PATH)).json()["data"]] == [made["id"]]
    changed = await api.http.patch(f"{PATH}/tiny-rtn4", json={"shadow_rate": 0.5, "replicas": 2})
    assert (changed.json()["shadow_rate"], changed.json()["replicas"]) == (0.5, 2)
    await api.state.deployments.report(made["id"], AgentReport(processes=1))
    drains = await api.http.delete(f"{PATH}/tiny-rtn4")
    assert (drains.status_code, drains.json()["state"]) == (202, "draining")
    conflict = await api.http.patch(f"{PATH}/tiny-rtn4", json={"replicas": 1})
    assert (conflict.status_code, conflict.json()["code"]) == (409, "deployment_conflict")
    await api.state.deployments.report(made["id"], AgentReport(processes=0))
    assert (await api.http.get(f"{PATH}/tiny-rtn4")).status_code == 404
    assert (await api.http.get(f"{PATH}/{made['id']}/events")).json()["data"][-1]["type"] == "deleted"
    second = await create(api)
    assert (await api.http.delete(f"{PATH}/{second['id']}")).status_code == 204


async def test_what_is_wrong_is_refused_at_its_place(api: Api) -> None:
    def of(step: dict[str, Any]) -> dict[str, Any]:
        return {"model": {"model": "tiny", "recipe": [step]}}

    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"name": "a b"}, "invalid_request", "/name"),
        ({"name": "dep_01M89D9HJWGEE9A2EB6NKQX32W"}, "invalid_request", "/name"),
        ({"nmae": "x"}, "unknown_field", "/nmae"),
        ({"model": {"model": "tinny"}}, "unknown_model", "/model/model"),
        ({"reference": {"model": "tinny"}}, "unknown_model", "/reference/model"),
        (of({"type": "quantize.rtm"}), "unknown_recipe", "/model/recipe/0/type"),
        (
            of({"type": "quantize.rtn", "bits": 4, "group_size": 48}),
            "group_size_mismatch",
            "/model/recipe/0/group_size",
        ),
        (of(GPTQ), "recipe_not_applicable", "/model/recipe/0/calibration"),
        ({"max_model_len": 1_000_000}, "window_too_large", "/max_model_len"),
        ({"version": ABSENT}, "profile_not_found", "/version"),
        ({"version": "v1"}, "invalid_request", "/version"),
        ({"shadow_rate": 2}, "invalid_request", "/shadow_rate"),
        ({"replicas": 16}, "deployment_conflict", "/replicas"),
    ]
    for changes, code, pointer in cases:
        answer = (await api.http.post(PATH, json=body(**changes))).json()
        assert (answer["code"], answer["pointer"]) == (code, pointer), answer
    assert (await api.http.get(PATH)).json()["data"] == []


async def test_the_same_key_and_body_give_the_same_deployment(api: Api) -> None:
    headers = {"idempotency-key": "k1"}
    first = await api.http.post(PATH, json=body(), headers=headers)
    again = await api.http.post(PATH, json=body(), headers=headers)
    assert (again.status_code, again.json()["id"]) == (201, first.json()["id"])
    assert again.headers["idempotency-replayed"] == "true"
    other = await api.http.post(PATH, json=body(name="other"), headers=headers)
    assert other.json()["code"] == "idempotency_conflict"
    assert (await api.http.post(PATH, json=body())).json()["code"] == "deployment_exists"
    assert (await api.http.delete(f"{PATH}/tiny-rtn4")).status_code == 204
    anew = await api.http.post(PATH, json=body(), headers=headers)
    assert (anew.status_code, "idempotency-replayed" in anew.headers) == (201, False), "deleting it frees its key"
    assert anew.json()["id"] != first.json()["id"]


@pytest.fixture
async def still(api: Api) -> Api:
    """The service without what it does by itself every few seconds: what is swept is swept by the test."""
    tasks = [task for task in asyncio.all_tasks() if task.get_name() in {"deployments", "reconcile"}]
    assert len(tasks) == 2
    await cancel(*tasks)
    return api


async def test_fits_wait_for_their_turn_in_a_line_of_their_own(still: Api) -> None:
    first, second = [(await create(still, name=name))["fit_job"] for name in ("one", "two")]
    state = still.state
    assert await queue.known(state.docket, [first, second]) == {first: True, second: False}
    await state.store.claim(first, "worker")
    await hand_over(state.store, state.docket)
    assert await queue.known(state.docket, [first, second]) == {first: True, second: True}


async def test_a_fit_that_was_never_queued_is_queued_by_the_sweep(still: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    api = still

    async def lost(*_: object, **__: object) -> None:
        raise RedisConnectionError

    with monkeypatch.context() as away:
        away.setattr(api.state.store, "create", lost)
        await create(api)
    made = (await api.http.get(f"{PATH}/tiny-rtn4")).json()
    assert made["fit_job"] is not None
    assert (await api.http.get(f"/v1/diagnosis/jobs/{made['fit_job']}")).status_code == 404
    await service.sweep(api.state)
    assert (await api.http.get(f"/v1/diagnosis/jobs/{made['fit_job']}")).json()["status"] == "queued"


async def test_deleting_a_deployment_cancels_the_fit_that_it_queued_and_no_other(api: Api) -> None:
    made = await create(api)
    asked = {
        "kind": "calibrate",
        "reference": made["reference"],
        "candidate": made["model"],
        "deployment": made["id"],
        "window": 64,
    }
    answer = await api.http.post("/v1/diagnosis/jobs", json=asked)
    assert answer.status_code == 202, answer.text
    mine = answer.json()["id"]
    assert (await api.http.delete(f"{PATH}/tiny-rtn4")).status_code == 204
    status = {job["id"]: job["status"] for job in (await api.http.get("/v1/diagnosis/jobs")).json()["data"]}
    assert status == {made["fit_job"]: "cancelled", mine: "queued"}


async def test_a_fit_that_fails_is_the_reason_why_identity_is_served(api: Api) -> None:
    made = await create(api)
    claim = await claimed(api.state.store, made["fit_job"], "worker")
    await api.state.store.fail(claim.job_id, claim.attempt, job_error(ErrorCode.DISK_FULL, "No space is left.", ""))
    await service.sweep(api.state)
    await service.sweep(api.state)
    found = (await api.http.get(f"{PATH}/{made['id']}")).json()
    assert (found["active_version"], found["fit_reason"]) == (
        "identity",
        f"The calibrate job failed: No space is left. ({claim.job_id})",
    )
    assert await kinds(api) == ["created", "fit_started", "refused"]


async def test_what_its_own_fit_proved_is_promoted_also_where_another_job_had_stored_the_same_profile(api: Api) -> None:
    made = await create(api)
    claim = await claimed(api.state.store, made["fit_job"], "worker")
    report = calibrate_report(deployment=made["id"]) | {"job": claim.job_id}
    path = api.state.store.settings.job_dir(claim.job_id) / "attempt-1" / "report.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(report))
    await api.state.store.finish(claim.job_id, claim.attempt, report="attempt-1/report.json", severity="mild")
    await service.sweep(api.state)
    await service.sweep(api.state)
    found = (await api.http.get(f"{PATH}/{made['id']}")).json()
    assert (found["active_version"], found["fit_reason"]) == (report["profile"], "")
    assert (await kinds(api)).count("promoted") == 1


async def test_a_model_is_not_fitted_to_itself(api: Api) -> None:
    made = await create(api, name="plain", model={"model": "tiny"}, reference={"model": "tiny"})
    reason = "the model is its own reference: there is nothing to calibrate"
    assert (made["fit_job"], made["fit_reason"], made["active_version"]) == (None, reason, "identity")
    await service.sweep(api.state)
    for mode in ("off", "auto"):
        changed = (await api.http.patch(f"{PATH}/plain", json={"calibration": mode})).json()
    assert (changed["fit_job"], changed["fit_reason"]) == (None, reason)
    assert (await api.http.get("/v1/diagnosis/jobs")).json()["data"] == []
    modified = await create(api)
    assert modified["fit_job"] is not None
    assert modified["fit_reason"] == ""


async def test_versions_by_hand(api: Api) -> None:
    made = await create(api)
    missing = await api.http.post(f"{PATH}/tiny-rtn4/promote", json={"version": ABSENT})
    assert (missing.status_code, missing.json()["code"], missing.json()["pointer"]) == (
        404,
        "profile_not_found",
        "/version",
    )
    await api.state.deployments.promote(made["id"], ABSENT, reason="test")
    frozen = (await api.http.post(f"{PATH}/tiny-rtn4/freeze")).json()
    assert (frozen["calibration"], frozen["active_version"]) == ("frozen", ABSENT)
    back = (await api.http.post(f"{PATH}/tiny-rtn4/rollback", json={"reason": "worse"})).json()
    assert (back["active_version"], back["rollbacks"]) == ("identity", 1)
    assert (await api.http.post(f"{PATH}/tiny-rtn4/rollback")).json()["rollbacks"] == 1, "nowhere to go"
    assert (await api.http.post(f"{PATH}/tiny-rtn4/unfreeze")).json()["calibration"] == "auto"
    events = (await api.http.get(f"{PATH}/tiny-rtn4/events?after=2")).json()["data"]
    assert [(event["type"], event["reason"]) for event in events] == [
        ("promoted", "test"),
        ("frozen", ""),
        ("rolled_back", "worse"),
        ("changed", ""),
    ]


async def test_sampling_is_shown_replaced_and_taken_away(api: Api) -> None:
    made = await create(api, sampling={"temperature": 0.7, "top_k": 40})
    kept = {name: value for name, value in made["sampling"].items() if value is not None}
    assert kept == {"temperature": 0.7, "top_k": 40}
    for change, expected in (({"top_p": 0.9}, {"top_p": 0.9}), ({}, {})):
        changed = (await api.http.patch(f"{PATH}/tiny-rtn4", json={"sampling": change})).json()
        found = (await api.http.get(f"{PATH}/tiny-rtn4")).json()
        assert found["sampling"] == changed["sampling"]
        assert {name: value for name, value in found["sampling"].items() if value is not None} == expected
    await api.http.patch(f"{PATH}/tiny-rtn4", json={"sampling": {}})
    assert (await kinds(api)).count("changed") == 2, "the same is no change"
    refused = await api.http.patch(f"{PATH}/tiny-rtn4", json={"sampling": {"temperature": 3}})
    assert (refused.status_code, refused.json()["pointer"]) == (422, "/sampling/temperature")
    misspelt = await api.http.post(PATH, json=body(name="b", sampling={"temprature": 1}))
    assert misspelt.json()["code"] == "unknown_field"


async def test_events_come_as_pages_and_as_a_stream_that_resumes(api: Api) -> None:
    made = await create(api, calibration="off")
    for rate in (0.1, 0.2, 0.3):
        await api.http.patch(f"{PATH}/tiny-rtn4", json={"shadow_rate": rate})
    page = (await api.http.get(f"{PATH}/tiny-rtn4/events?limit=2&after=1")).json()
    assert ([event["id"] for event in page["data"]], page["last_id"], page["has_more"]) == ([2, 3], 3, True)
    await api.http.delete(f"{PATH}/tiny-rtn4")
    headers = {"accept": "text/event-stream", "last-event-id": "2"}
    stream = await api.http.get(f"{PATH}/{made['id']}/events", headers=headers)
    assert stream.headers["content-type"].startswith("text/event-stream")
    names = [line.removeprefix("event: ") for line in stream.text.splitlines() if line.startswith("event: ")]
    numbers = [line.removeprefix("id: ") for line in stream.text.splitlines() if line.startswith("id: ")]
    assert (names, numbers) == (["changed", "changed", "deleted"], ["3", "4", "5"])
    data = [json.loads(line.removeprefix("data: ")) for line in stream.text.splitlines() if line.startswith("data: ")]
    assert data[0]["evidence"] == {"shadow_rate": 0.2}
    done = await api.http.get(f"{PATH}/{made['id']}/events", headers=headers | {"last-event-id": "5"})
    assert done.status_code == 204, "an EventSource does not come back"
    bad = await api.http.get(f"{PATH}/{made['id']}/events", headers=headers | {"last-event-id": "x"})
    assert bad.json()["code"] == "invalid_cursor"


@pytest.fixture
async def second(settings: Settings) -> AsyncIterator[Api]:
    """Another API process over the same Redis."""
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http,
    ):
        yield Api(app, app.state.hemostat, http)


async def test_of_requests_at_one_time_only_those_that_fit_the_memory_are_taken(api: Api, second: Api) -> None:
    # 0.2 for diagnosis, 0.25 a replica and 0.1 a deployment: two of one replica each, whoever they are.
    names = [f"tiny-{number}" for number in range(12)]
    posts = [(api, second)[at % 2].http.post(PATH, json=body(name=name)) for at, name in enumerate(names)]
    answers = await asyncio.gather(*posts)
    assert sorted(answer.status_code for answer in answers) == [201] * 2 + [409] * 10
    for answer in answers:
        if answer.status_code == 409:
            told = answer.json()
            assert told["code"] == "deployment_conflict"
            assert "No device has room for serve-0 of tiny-" in told["detail"]
            assert "0.10" in told["detail"], "1 − 0.2 − 2 × (0.25 + 0.1)"
            assert told["pointer"] == "/replicas"
    made = [one["name"] for one in (await api.http.get(PATH)).json()["data"]]
    assert len(made) == 2
    again = (await api.http.post(PATH, json=body(name=made[0]))).json()
    assert again["code"] == "deployment_exists", "a name that is taken is the nearer fault"
    await api.http.delete(f"{PATH}/{made[1]}")  # nothing of it runs: its share is free
    # 0.2 + 0.1 + 2 × 0.25 fit: of two requests for a second replica and one for another deployment one is taken.
    grown = await asyncio.gather(
        api.http.patch(f"{PATH}/{made[0]}", json={"replicas": 2}),
        second.http.post(PATH, json=body(name="tiny-late")),
    )
    assert sorted(answer.status_code >= 400 for answer in grown) == [False, True]
    left = (await api.http.get(PATH)).json()["data"]
    assert sum(0.25 * one["replicas"] + 0.1 for one in left) + 0.2 <= 1 + 1e-9
    shrunk = await api.http.patch(f"{PATH}/{made[0]}", json={"replicas": 1, "shadow_rate": 0.5})
    assert shrunk.json()["replicas"] == 1


async def test_hidden_states_that_nobody_came_for_are_removed_by_the_sweep(still: Api) -> None:
    api = still
    made = await create(api)
    file = api.state.settings.home / "deployments" / made["id"] / "hidden" / "r.bin"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"secret")
    await service.sweep(api.state)
    assert file.exists()
    past = time.time() - api.state.settings.shadow_expiry_s - 1
    os.utime(file, (past, past))
    await service.sweep(api.state)
    assert not file.exists()


async def test_metrics_targets_and_readiness_tell_of_it(api: Api) -> None:
    made = await create(api, calibration="off")
    store = api.state.deployments
    await store.register(made["id"], replica(metrics_urls=("http://10.0.0.7:9001/metrics", "http://10.0.0.7:9002/x")))
    for number in range(2):
        await store.push_sample(
            made["id"], ShadowSample(id=str(number), prompt=(), output=(1,), version="identity", at=0)
        )
    targets = (await api.http.get("/metrics/targets")).json()
    assert [(one["targets"], one["labels"]["__metrics_path__"]) for one in targets] == [
        (["10.0.0.7:9001"], "/metrics"),
        (["10.0.0.7:9002"], "/x"),
    ]
    assert targets[0]["labels"]["deployment"] == "tiny-rtn4"
    text = (await api.http.get("/metrics")).text
    samples = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    name = ("deployment", "tiny-rtn4")
    assert [samples["hemostat_deployment_state", name, ("state", state)] for state in DeploymentState] == [
        0,
        1,
        0,
        0,
        0,
    ]
    assert samples["hemostat_deployment_replicas", name, ("state", "ready")] == 1
    assert samples["hemostat_deployment_replicas_wanted", name] == 1
    assert samples["hemostat_calibration_info", name, ("version", "identity")] == 1
    assert samples["hemostat_calibration_promotions_total", name] == 0
    assert samples["hemostat_shadow_queue_depth", name] == 2
    ready = (await api.http.get("/readyz")).json()
    assert ready["deployments"] == [{"name": "tiny-rtn4", "state": "ready", "reason": "", "version": "identity"}]
