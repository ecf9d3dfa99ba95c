"""What a job leaves, over a real server in this process."""

import json

import jsonschema
import pytest

from app.jobs import files, results, service
from app.jobs.record import JobRecord
from app.jobs.store import JobStore
from app.settings import Settings
from tests.integration.app.conftest import Api
from tests.integration.app.jobs.ends import fail, finish
from tests.support.html import tree
from tests.support.reports import variants

JOBS = "/v1/diagnosis/jobs"


async def test_a_report_is_json_or_a_page_as_the_client_likes(api: Api, report: bytes) -> None:
    job_id = await api.submit()
    await finish(api, job_id, report)
    url = f"{JOBS}/{job_id}/report"
    plain = await api.http.get(url)
    assert plain.headers["content-type"] == "application/json"
    assert plain.content == report
    for options in ({"headers": {"accept": "text/html"}}, {"params": {"format": "html"}}):
        page = await api.http.get(url, **options)
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.text.casefold().lstrip().startswith("<!doctype html>")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "script-src" not in page.headers["content-security-policy"]
        assert page.headers["etag"] != plain.headers["etag"]
    forced = await api.http.get(url, params={"format": "json"}, headers={"accept": "text/html"})
    assert forced.content == report
    known = await api.http.get(url, headers={"if-none-match": plain.headers["etag"]})
    assert known.status_code == 304
    assert (await api.http.get(url, headers={"accept": "image/png"})).json()["code"] == "not_acceptable"
    assert (await api.http.get(url, params={"format": "pdf"})).status_code == 422


async def test_a_report_of_another_version_is_refused_as_a_page_and_its_job_is_still_listed(
    api: Api, report: bytes
) -> None:
    job_id = await api.submit()
    await finish(api, job_id, json.dumps(json.loads(report) | {"warnings": ["The text is short."]}).encode())
    url = f"{JOBS}/{job_id}/report"
    page = await api.http.get(url, params={"format": "html"})
    assert (page.status_code, page.json()["code"]) == (409, "job_unreadable")
    assert "submit its job again" in page.json()["hint"]
    assert (await api.http.get(url)).json()["warnings"] == ["The text is short."]
    for accepted in ("application/json", "text/html"):
        listed = await api.http.get(JOBS, headers={"accept": accepted})
        assert listed.status_code == 200 and job_id in listed.text


async def test_the_report_validates_against_the_published_schema(api: Api, report: bytes) -> None:
    schema = (await api.http.get("/v1/diagnosis/schemas/report")).json()
    assert schema["$id"] == "hemostat.report/1"
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(report), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(report) | {"tokens": -1}, schema)


async def test_without_a_result_the_answer_says_why(api: Api) -> None:
    job_id = await api.submit()
    waiting = await api.http.get(f"{JOBS}/{job_id}/report")
    assert (waiting.status_code, waiting.json()["code"]) == (409, "job_not_finished")
    assert int(waiting.headers["retry-after"]) > 0
    await fail(api, job_id)
    for tail in ("/report", "/report?format=html", "/artifacts", "/artifacts/tokens.npz"):
        answer = await api.http.get(f"{JOBS}/{job_id}{tail}")
        assert (answer.status_code, answer.json()["code"]) == (409, "job_not_finished")
        assert "It wanted 9 GiB." in answer.json()["detail"]
        assert answer.json()["hint"] == "Use less."
    job = (await api.http.get(f"{JOBS}/{job_id}")).json()
    assert (job["status"], job["error"]["code"]) == ("failed", "engine_out_of_memory")


async def test_a_browser_that_asks_for_a_report_too_early_sees_the_job_and_later_the_report(api: Api) -> None:
    url = f"{JOBS}/{await api.submit()}/report"
    browser = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
    early = await api.http.get(url, headers=browser)
    assert (early.status_code, early.headers["content-type"]) == (409, "text/html; charset=utf-8")
    assert int(early.headers["retry-after"]) > 0
    assert "waiting for a worker" in early.text
    assert [
        meta.attributes.get("content")
        for meta in tree(early.text).all("meta")
        if meta.attributes.get("http-equiv") == "refresh"
    ] == ["5"], "without an address: it loads the report's own again"
    for options in ({"headers": {"accept": "*/*"}}, {"params": {"format": "html"}}):
        told = await api.http.get(url, **options)
        assert (told.status_code, told.json()["code"]) == (409, "job_not_finished")
    job_id = url.split("/")[-2]
    await fail(api, job_id)
    failed = await api.http.get(url, headers=browser)
    assert failed.status_code == 409
    assert "It wanted 9 GiB." in failed.text
    assert "refresh" not in failed.text
    paths = (await api.http.get("/openapi.json")).json()["paths"]
    assert "text/html" in paths[f"{JOBS}/{{job_id}}/report"]["get"]["responses"]["409"]["content"]


async def test_artifacts_by_name_and_nothing_else(api: Api) -> None:
    job_id = await api.submit()
    await finish(api, job_id)
    listed = (await api.http.get(f"{JOBS}/{job_id}/artifacts")).json()
    assert [(entry["name"], entry["bytes"]) for entry in listed["data"]] == [("tokens.npz", 6)]
    got = await api.http.get(listed["data"][0]["url"])
    assert got.content == b"values"
    assert got.headers["content-disposition"] == 'attachment; filename="tokens.npz"'
    for name in ("report.json", "..%2freport.json", "%2e%2e", "%2fetc%2fpasswd", "tokens.npz%00", "x" * 300):
        answer = await api.http.get(f"{JOBS}/{job_id}/artifacts/{name}")
        assert answer.status_code in {404, 307}, name
        assert answer.json()["code"] in {"artifact_not_found", "not_found", "job_not_found"}


@pytest.mark.parametrize("tail", ["/report", "/artifacts", "/artifacts/tokens.npz"])
async def test_a_job_deleted_after_a_look_is_not_found(api: Api, tail: str, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = await api.submit()
    await finish(api, job_id)
    find = service.find

    async def found_then_deleted(store: JobStore, wanted: str, owner: str | None) -> JobRecord:
        record = await find(store, wanted, owner)
        monkeypatch.setattr(service, "find", find)
        await service.delete(store, api.state.settings, wanted, None)
        return record

    monkeypatch.setattr(service, "find", found_then_deleted)
    answer = await api.http.get(f"{JOBS}/{job_id}{tail}")
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
    assert answer.json()["detail"] == f"There is no job {job_id}."


@pytest.mark.parametrize("headers", [{}, {"range": "bytes=1-3"}, {"range": "bytes=0-1,4-5"}], ids=str)
async def test_an_artifact_deleted_before_it_is_opened_is_refused_and_not_cut_off(
    api: Api, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await api.submit()
    await finish(api, job_id)
    url = f"{JOBS}/{job_id}/artifacts/tokens.npz"
    assert (await api.http.get(url, headers=headers)).status_code == (206 if headers else 200)
    artifact = results.artifact

    def found_then_gone(record: JobRecord, settings: Settings, name: str) -> results.Artifact:
        found = artifact(record, settings, name)
        files.remove(settings, record.job.id)
        return found

    monkeypatch.setattr(results, "artifact", found_then_gone)
    gone = await api.http.get(url, headers=headers)
    assert (gone.status_code, gone.json()["code"]) == (404, "artifact_not_found")


@pytest.fixture
def report() -> bytes:
    return json.dumps(variants()["severe"]).encode()
