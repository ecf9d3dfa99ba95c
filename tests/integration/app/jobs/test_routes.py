"""The routes over a real server, in this process."""

import asyncio
import json
from typing import Any

from app.contracts.job import Estimate, Job, JobPage, Progress
from app.jobs import keys, queue
from app.kinds.compare.request import CompareRequest
from tests.integration.app.conftest import Api, compare
from tests.integration.app.jobs.ends import finish
from tests.integration.app.jobs.stored import claimed
from tests.support.job_folders import fill_job

JOBS = "/v1/diagnosis/jobs"
JSON_TYPE = {"content-type": "application/json"}


# --- submitting


async def test_a_submission_is_accepted_recorded_and_queued(api: Api) -> None:
    answer = await api.http.post(JOBS, json=compare(metadata={"commit": "4f2c"}))
    job = Job.model_validate(answer.json())
    assert answer.status_code == 202
    assert answer.headers["location"] == f"{JOBS}/{job.id}"
    assert (job.status, job.attempt, job.metadata) == ("queued", 0, {"commit": "4f2c"})
    assert job.report_url == f"{JOBS}/{job.id}/report"
    assert (await api.http.get(answer.headers["location"])).json() == answer.json()
    assert (await queue.known(api.state.docket, [job.id]))[job.id]
    claim = await claimed(api.state.store, job.id)
    assert claim.request == CompareRequest.model_validate(compare(metadata={"commit": "4f2c"}))


async def test_a_browser_gets_a_page_of_a_job_with_its_last_message_and_a_program_the_job(api: Api) -> None:
    job_id = await api.submit()
    claim = await claimed(api.state.store, job_id)
    for message in ("the first line", "the last line"):
        await api.state.store.log(job_id, claim.attempt, message)
    page = await api.http.get(f"{JOBS}/{job_id}", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert page.headers["content-type"].startswith("text/html")
    assert (page.headers["vary"], page.headers["cache-control"]) == ("accept", "no-store")
    assert "the last line" in page.text
    assert "the first line" not in page.text
    for accept in ("*/*", "application/json", "text/plain"):
        told = await api.http.get(f"{JOBS}/{job_id}", headers={"accept": accept})
        assert (told.json()["id"], told.headers["vary"]) == (job_id, "accept")


async def test_a_dry_run_checks_and_estimates_and_leaves_nothing(api: Api) -> None:
    before = await written(api)
    answer = await api.http.post(JOBS, json=compare(dry_run=True), headers={"idempotency-key": "k"})
    assert answer.status_code == 200
    assert Estimate.model_validate(answer.json()).documents == 1
    refused = await api.http.post(JOBS, json=compare(dry_run=True, window=100_000))
    assert (refused.status_code, refused.json()["code"]) == (422, "window_too_large")
    assert await written(api) == before


async def test_a_refused_submission_says_where_and_writes_nothing(api: Api) -> None:
    before = await written(api)
    step = {"type": "quantize.rtn", "bits": 4, "group_size": 48}
    cases: list[tuple[dict[str, Any], int, str, str]] = [
        ({"reference": {"model": "tiyn"}}, 404, "unknown_model", "/reference/model"),
        ({"kind": "comprae"}, 422, "unknown_kind", "/kind"),
        ({"windw": 5}, 422, "unknown_field", "/windw"),
        (
            {"candidate": {"model": "tiny", "recipe": [step]}},
            422,
            "group_size_mismatch",
            "/candidate/recipe/0/group_size",
        ),
        ({"window": 4096}, 422, "window_too_large", "/window"),
        ({"text": {"source": "file", "path": "../x.txt"}}, 403, "path_forbidden", "/text/path"),
    ]
    for changes, status, code, pointer in cases:
        answer = await api.http.post(JOBS, json=compare(**changes), headers={"idempotency-key": "k"})
        problem = answer.json()
        assert (answer.status_code, problem["code"], problem["pointer"]) == (status, code, pointer)
        assert problem["hint"]
        assert problem["request_id"] == answer.headers["x-request-id"]
        assert answer.headers["content-type"] == "application/problem+json"
        assert await written(api) == before
    assert not (api.state.settings.home / "jobs").exists()


async def written(api: Api) -> set[str]:
    """Keys but that of the clock, which the service writes once it has run for a while."""
    return {str(key) for key in await api.state.redis.keys("*")} - {keys.CLOCK}


async def test_only_json_in_utf8_is_taken(api: Api) -> None:
    types = {
        "text/plain": 415,
        "application/json; charset=latin-1": 415,
        "application/x-www-form-urlencoded": 415,
        "Application/JSON; charset=UTF-8": 202,
        'application/json; charset="utf-8"': 202,
    }
    for told, status in types.items():
        answer = await api.http.post(JOBS, content=json.dumps(compare()).encode(), headers={"content-type": told})
        assert answer.status_code == status, told
    nothing = await api.http.post(JOBS, content=json.dumps(compare()).encode())
    assert (nothing.status_code, nothing.json()["code"]) == (415, "unsupported_media_type")


async def test_a_full_queue_is_a_429_that_says_when_to_come_back(api: Api) -> None:
    limited = api.state.settings.model_copy(update={"max_queued_jobs": 1})
    api.state.store.settings = limited
    first = await api.submit()
    answer = await api.http.post(JOBS, json=compare())
    assert (answer.status_code, answer.json()["code"]) == (429, "queue_full")
    assert int(answer.headers["retry-after"]) > 0
    await api.http.post(f"{JOBS}/{first}/cancel")
    await api.submit()


# --- idempotency


async def test_the_same_key_and_body_give_the_same_job(api: Api) -> None:
    headers = {"idempotency-key": "build-17"}
    first = await api.http.post(JOBS, json=compare(), headers=headers)
    # Neither white space nor order nor a default that is spelt out makes another body.
    spelt = json.dumps(dict(reversed(compare(seed=0, dry_run=False).items())), indent=3)
    second = await api.http.post(JOBS, content=spelt, headers=headers | JSON_TYPE)
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    other = await api.http.post(JOBS, json=compare(seed=1), headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")
    assert other.json()["errors"][0]["parameter"] == "Idempotency-Key"
    assert len((await api.http.get(JOBS)).json()["data"]) == 1


async def test_of_many_requests_with_one_key_at_once_one_makes_the_job(api: Api) -> None:
    sent = [api.http.post(JOBS, json=compare(), headers={"idempotency-key": "race"}) for _ in range(24)]
    answers = await asyncio.gather(*sent)
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert len((await api.http.get(JOBS)).json()["data"]) == 1


async def test_a_refused_request_frees_its_key(api: Api) -> None:
    headers = {"idempotency-key": "build-17"}
    assert (await api.http.post(JOBS, json=compare(window=4096), headers=headers)).status_code == 422
    assert (await api.http.post(JOBS, json=compare(), headers=headers)).status_code == 202


async def test_a_malformed_key_is_refused(api: Api) -> None:
    for key in ("", "x" * 256, "a\tb", "schl\u00fcssel"):
        answer = await api.http.post(JOBS, json=compare(), headers={"idempotency-key": key.encode()})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), key


# --- reading


async def test_lists_page_and_filter(api: Api) -> None:
    ids = [await api.submit(metadata={"n": str(n)}) for n in range(5)][::-1]
    page = JobPage.model_validate((await api.http.get(JOBS, params={"limit": 2})).json())
    assert [job.id for job in page.data] == ids[:2]
    assert (page.first_id, page.last_id, page.has_more) == (ids[0], ids[1], True)
    older = (await api.http.get(JOBS, params={"limit": 2, "after": page.last_id})).json()
    assert [job["id"] for job in older["data"]] == ids[2:4]
    newer = (await api.http.get(JOBS, params={"limit": 2, "before": older["data"][0]["id"]})).json()
    assert [job["id"] for job in newer["data"]] == ids[:2]
    assert not newer["has_more"]
    tagged = (await api.http.get(JOBS, params={"metadata": ["n=3"]})).json()
    assert [job["id"] for job in tagged["data"]] == [ids[1]]
    assert (await api.http.get(JOBS, params={"status": "running"})).json()["data"] == []
    empty = (await api.http.get(JOBS, params={"candidate": "none"})).json()
    assert (empty["first_id"], empty["last_id"], empty["has_more"]) == (None, None, False)


async def test_a_bad_query_is_a_422_that_names_the_parameter(api: Api) -> None:
    for query, code in {
        "staus=queued": "unknown_field",
        "status=qeued": "invalid_request",
        "limit=0": "invalid_request",
        "limit=101": "invalid_request",
        "limit=ten": "invalid_request",
        "after=diag_x": "invalid_cursor",
        "before=../../etc": "invalid_cursor",
        "metadata=novalue": "invalid_request",
        "metadata==x": "invalid_request",
    }.items():
        problem = (await api.http.get(f"{JOBS}?{query}")).json()
        found = (problem["status"], problem["code"], problem["errors"][0]["parameter"])
        assert found == (422, code, query.partition("=")[0]), query


async def test_an_unchanged_job_is_not_sent_again(api: Api) -> None:
    job_id = await api.submit()
    first = await api.http.get(f"{JOBS}/{job_id}")
    etag = first.headers["etag"]
    again = await api.http.get(f"{JOBS}/{job_id}", headers={"if-none-match": f'"other", W/{etag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    await api.state.store.claim(job_id, "w1")
    await api.state.store.progress(job_id, 1, Progress(phase="candidate", done=1, total=2))
    changed = await api.http.get(f"{JOBS}/{job_id}", headers={"if-none-match": etag})
    assert changed.status_code == 200
    assert changed.json()["progress"] == {"phase": "candidate", "done": 1, "total": 2}


async def test_a_job_that_does_not_exist_is_a_404_on_every_route(api: Api) -> None:
    routes = [("GET", tail) for tail in ("", "/events", "/report", "/artifacts", "/artifacts/tokens.npz")]
    for job_id in ("diag_01ARZ3NDEKTSV4RRFFQ69G5FAV", "diag_x", "..", "%2e%2e%2f", "a" * 5000):
        for method, tail in [*routes, ("DELETE", ""), ("POST", "/cancel")]:
            answer = await api.http.request(method, f"{JOBS}/{job_id}{tail}")
            assert answer.status_code in {404, 405}, (method, tail)
            assert answer.json()["code"] in {"job_not_found", "not_found", "method_not_allowed"}
            assert answer.headers["content-type"] == "application/problem+json"


# --- ending


async def test_cancelling(api: Api) -> None:
    queued, running = await api.submit(), await api.submit()
    await api.state.store.claim(running, "w1")
    for job_id, status in ((queued, "cancelled"), (running, "cancelling")):
        for _ in range(2):
            answer = await api.http.post(f"{JOBS}/{job_id}/cancel")
            assert (answer.status_code, answer.json()["status"]) == (200, status)
    assert await queue.known(api.state.docket, [queued, running]) == {queued: False, running: True}
    done = await api.submit()
    await finish(api, done)
    assert (await api.http.post(f"{JOBS}/{done}/cancel")).json()["status"] == "succeeded"


async def test_what_a_job_left_goes_when_it_is_cancelled_while_it_waits_to_be_resumed(api: Api) -> None:
    job_id = await api.submit()
    claim = await claimed(api.state.store, job_id)
    fill_job(api.state.settings, job_id)
    folder = api.state.settings.job_dir(job_id)
    await api.http.post(f"{JOBS}/{job_id}/cancel")
    assert folder.is_dir(), "its worker has them, and tidies up itself"
    other = await api.submit()
    claim = await claimed(api.state.store, other)
    fill_job(api.state.settings, other)
    assert await api.state.store.release(other, claim.attempt)
    assert (await api.http.post(f"{JOBS}/{other}/cancel")).json()["status"] == "cancelled"
    assert not api.state.settings.job_dir(other).exists()


async def test_a_job_that_is_deleted_twice_at_one_time_is_deleted(api: Api) -> None:
    job_id = await api.submit()
    await finish(api, job_id)
    for number in range(100):
        (api.state.settings.job_dir(job_id) / "attempt-1" / str(number)).touch()
    answers = await asyncio.gather(*(api.http.delete(f"{JOBS}/{job_id}") for _ in range(3)))
    assert {answer.status_code for answer in answers} <= {204, 404}
    assert not api.state.settings.job_dir(job_id).exists()


async def test_deleting_removes_record_and_files_of_an_ended_job_only(api: Api) -> None:
    job_id = await api.submit()
    answer = await api.http.delete(f"{JOBS}/{job_id}")
    assert (answer.status_code, answer.json()["code"]) == (409, "job_active")
    await finish(api, job_id)
    folder = api.state.settings.job_dir(job_id)
    assert folder.is_dir()
    assert (await api.http.delete(f"{JOBS}/{job_id}")).status_code == 204
    assert not folder.exists()
    assert (await api.http.get(f"{JOBS}/{job_id}")).status_code == 404
    assert (await api.http.delete(f"{JOBS}/{job_id}")).status_code == 404


# --- results
