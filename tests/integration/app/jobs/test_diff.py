"""Differences of candidates over HTTP: the same answer as the command line's, exact refusals, pages that lead on."""

import asyncio
import contextlib
import json
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import numpy as np
import pytest
from typer.testing import CliRunner

from app.cli.main import app as cli
from app.contracts.errors import ErrorCode, HemostatError
from app.jobs import keys
from app.jobs.diff_examples import DIFF
from app.jobs.differences import Differences
from app.jobs.ids import new_job_id
from app.main import create_app
from app.settings import Settings
from tests.integration.app.conftest import Api
from tests.integration.app.jobs.stored import claimed
from tests.support.keys import bearer, key_line, write_keys
from tests.support.token_files import DOCUMENTS, LENGTH, values, write_job

DIFF_PATH = "/v1/diagnosis/diff"
HTML_ONLY = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
RNG = np.random.default_rng(5)
HARD = RNG.lognormal(-1, 0.8, DOCUMENTS).repeat(LENGTH) * RNG.lognormal(0, 0.4, DOCUMENTS * LENGTH)


async def finished(api: Api, scale: float, name: str, **provenance: Any) -> str:
    """A compare job that succeeded with these values by token."""
    job_id = await api.submit()
    claim = await claimed(api.state.store, job_id)
    folder = api.state.settings.job_dir(job_id) / f"attempt-{claim.attempt}"
    candidate = {"model": name} | provenance.pop("candidate", {})
    write_job(folder, values(scale * HARD), job=job_id, candidate=candidate, **provenance)
    assert await api.state.store.finish(
        job_id,
        claim.attempt,
        report=f"attempt-{claim.attempt}/report.json",
        severity="severe",
        artifacts=["tokens.parquet"],
    )
    return job_id


async def ask(api: Api, *jobs: str, headers: dict[str, str] | None = None, **query: Any) -> Any:
    return await api.http.get(DIFF_PATH, params={"job": list(jobs)} | query, headers=headers)


async def test_it_is_the_answer_of_the_command_line(api: Api, tmp_path: Path) -> None:
    jobs = [await finished(api, scale, name) for scale, name in ((1.0, "one"), (0.8, "two"), (0.8001, "three"))]
    answer = await ask(api, *jobs)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    told = answer.json()
    folders = [str(api.state.settings.job_dir(job) / "attempt-1") for job in jobs]
    done = await asyncio.to_thread(CliRunner().invoke, cli, ["diff", *folders, "--json"])
    assert told == json.loads(done.output)
    by_hand = [row["difference"]["mean"] for row in told["pairs"][0]["differences"] if row["measure"] == "kl"]
    assert by_hand == [pytest.approx(-0.2 * HARD.mean())]
    assert [row["job"] for row in told["ranking"]] == [jobs[1], jobs[2], jobs[0]]


async def test_an_answer_that_the_client_has_is_not_sent_again(api: Api) -> None:
    jobs = [await finished(api, 1.0, "one"), await finished(api, 0.8, "two")]
    first = await ask(api, *jobs)
    again = await ask(api, *jobs, headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    tags = {
        (await ask(api, *jobs, **query)).headers["etag"] for query in ({"by": "js"}, {"seed": 1}, {"format": "html"})
    }
    assert len(tags | {first.headers["etag"]}) == 4
    api.state.differences = Differences(api.state.settings, (shutil.which("false") or "/bin/false",))
    again = await ask(api, *jobs, headers={"if-none-match": f'"other", W/{first.headers["etag"]}'})
    assert (again.status_code, again.headers["etag"]) == (304, first.headers["etag"]), "and not computed again"


async def test_what_was_measured_otherwise_is_refused_unless_asked_for_and_labelled(api: Api) -> None:
    jobs = [await finished(api, 1.0, "one"), await finished(api, 0.8, "two", dtype="float32", engine="other 1.0")]
    refused = await ask(api, *jobs)
    assert (refused.status_code, refused.json()["code"]) == (422, "reports_not_comparable")
    assert "dtype: a bfloat16, b float32" in refused.json()["detail"]
    assert "anyway=true" in refused.json()["hint"]
    told = (await ask(api, *jobs, anyway="true")).json()
    assert told["label"].startswith("NOT COMPARABLE: dtype, engine differ")
    page = (await ask(api, *jobs, anyway="true", headers=HTML_ONLY)).text
    assert "NOT COMPARABLE: dtype, engine differ" in page


async def test_a_bad_query_is_a_422_that_names_the_parameter(api: Api) -> None:
    for query, code, parameter in (
        ("", "invalid_request", "job"),
        ("job=diag_x&job=diag_x", "invalid_request", "job"),
        ("&".join(f"job=diag_{index}" for index in range(21)), "invalid_request", "job"),
        ("job=a&job=b&by=bleu", "invalid_request", "by"),
        ("job=a&job=b&anyway=perhaps", "invalid_request", "anyway"),
        ("job=a&job=b&seed=-1", "invalid_request", "seed"),
        ("job=a&job=b&jobs=c", "unknown_field", "jobs"),
        ("job=a&job=b&format=pdf", "invalid_request", "format"),
    ):
        problem = (await api.http.get(f"{DIFF_PATH}?{query}")).json()
        assert (problem["status"], problem["code"]) == (422, code), query
        assert problem["errors"][0]["parameter"] == parameter


async def test_jobs_that_cannot_be_compared_are_refused_by_their_own_codes(api: Api) -> None:
    one, two, waiting = await finished(api, 1.0, "one"), await finished(api, 0.8, "two"), await api.submit()
    missing = new_job_id()
    for jobs, status, code in (
        ((one, missing), 404, "job_not_found"),
        ((one, waiting), 409, "job_not_finished"),
        ((one,), 422, "invalid_request"),
    ):
        answer = await ask(api, *jobs)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    (api.state.settings.job_dir(two) / "attempt-1" / "tokens.parquet").unlink()
    gone = await ask(api, one, two)
    assert (gone.status_code, gone.json()["code"]) == (404, "artifact_not_found")
    (api.state.settings.job_dir(two) / "attempt-1" / "tokens.parquet").write_bytes(b"PAR1 no")
    damaged = await ask(api, one, two)
    assert (damaged.status_code, damaged.json()["code"]) == (422, "invalid_request")
    assert two in damaged.json()["detail"]
    assert str(api.state.settings.home) not in damaged.text
    file = api.state.settings.job_dir(one) / "attempt-1" / "report.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"warnings": ["The text is short."]}))
    other = await ask(api, one, two)
    assert (other.status_code, other.json()["code"]) == (409, "job_unreadable")


# Waits until a job's folder is gone, then does what is asked.
AFTER_DELETION = """
import pathlib, runpy, sys, time
begun, folder = map(pathlib.Path, sys.argv[1:])
begun.touch()
while folder.exists():
    time.sleep(0.01)
runpy.run_module("workers.diagnosis.diff", run_name="__main__")
"""


async def test_a_job_that_is_deleted_while_it_is_compared_is_not_found(api: Api, tmp_path: Path) -> None:
    one, two = await finished(api, 1.0, "one"), await finished(api, 0.8, "two")
    begun, folder = tmp_path / "begun", api.state.settings.job_dir(two)
    command = (sys.executable, "-c", AFTER_DELETION, str(begun), str(folder))
    api.state.differences = Differences(api.state.settings, command)
    asked = asyncio.create_task(ask(api, one, two))
    async with asyncio.timeout(60):
        while not begun.exists() and not asked.done():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.01)
    assert (await api.http.delete(f"/v1/diagnosis/jobs/{two}")).status_code == 204
    answer = await asked
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (404, "job_not_found")
    assert problem["detail"] == f"There is no job {two}."


async def test_a_job_of_another_kind_has_nothing_to_compare(api: Api) -> None:
    one, two = await finished(api, 1.0, "one"), await finished(api, 0.8, "two")
    await api.state.redis.hset(keys.job(two), "kind", "mitigate")
    answer = await ask(api, one, two)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert "of kind mitigate" in answer.json()["detail"]


async def test_the_example_of_the_page_fits_its_schema(api: Api) -> None:
    page = (await api.http.get("/openapi.json")).json()
    schema = {"$ref": "#/components/schemas/DiffReport", "components": page["components"]}
    jsonschema.validate(json.loads(json.dumps(DIFF)), schema)
    one, two = await finished(api, 1.0, "one"), await finished(api, 0.8, "two")
    jsonschema.validate((await ask(api, one, two)).json(), schema)


# --- the process that is asked


@pytest.fixture
async def owners(settings: Settings) -> AsyncIterator[dict[str, Api]]:
    """One service, as each owner of a key sees it."""
    lines = [key_line("ann", "diagnose,read"), key_line("bob", "diagnose,read"), key_line("all", "admin")]
    app = create_app(settings.model_copy(update={"api_keys_file": write_keys(settings.home / "keys", *lines)}))
    async with app.router.lifespan_context(app), contextlib.AsyncExitStack() as open_clients:
        made = {}
        for owner in ("ann", "bob", "all"):
            client = httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://service.example", headers=bearer(owner)
            )
            made[owner] = Api(app, app.state.hemostat, await open_clients.enter_async_context(client))
        yield made


async def test_an_owner_whose_differences_are_computed_delays_no_other(owners: dict[str, Api]) -> None:
    ann, bob = owners["ann"], owners["bob"]
    anns, bobs = [[await finished(api, scale, "one") for scale in (1.0, 0.8)] for api in (ann, bob)]
    line = ann.state.differences._line
    async with line.place("ann"):
        waits = asyncio.create_task(ask(ann, *anns))
        async with asyncio.timeout(60):
            while not line.queued:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.01)
        assert (await ask(bob, *bobs)).status_code == 200
        assert not waits.done()
    assert (await waits).status_code == 200


@pytest.mark.parametrize("headers", [None, HTML_ONLY], ids=["json", "page"])
async def test_no_report_of_another_owner_is_read_through_a_difference(
    owners: dict[str, Api], headers: dict[str, str] | None
) -> None:
    ann, bob = owners["ann"], owners["bob"]
    mine, second = await finished(ann, 1.0, "ann-one"), await finished(ann, 0.9, "ann-two")
    other = await finished(bob, 0.8, "bob-one")
    assert (await ask(owners["all"], mine, other, headers=headers)).status_code == 200  # it is computed by now
    assert (await ask(ann, mine, second, headers=headers)).status_code == 200
    for jobs in ((mine, other), (other, mine)):
        refused = await ask(ann, *jobs, headers=headers)
        assert refused.status_code == 404
        assert "bob-one" not in refused.text


async def test_what_takes_too_long_is_ended_and_told(api: Api) -> None:
    one, two = await finished(api, 1.0, "one"), await finished(api, 0.8, "two")
    records = [await api.state.store.get(job) for job in (one, two)]
    slow = Differences(api.state.settings, (sys.executable, "-c", "import time; time.sleep(600)"), longest_s=0.3)
    with pytest.raises(HemostatError) as caught:
        await slow.answer([record for record in records if record], by="kl", anyway=False, seed=0, owner="")
    assert caught.value.code is ErrorCode.UNAVAILABLE
    assert caught.value.retry_after_s
