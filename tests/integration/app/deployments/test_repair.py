"""A deployment that names a job whose repair is to be served beside packed weights."""

import json
from typing import Any

import pytest

from app.contracts.deployment import DeploymentRequest
from app.contracts.errors import ErrorCode
from app.deployments.repair import repaired
from app.jobs.ids import new_job_id
from app.kinds.mitigate.request import MitigateRequest
from app.models.recipes import canonical_json
from app.settings import Settings
from tests.integration.app.conftest import Api
from tests.integration.app.jobs.stored import claimed
from tests.support.mitigate_reports import mitigate_report
from tests.support.processor import needs_avx512
from tests.support.quantizing import RECIPE
from tests.support.refusals import refused
from tests.support.reports import compare_report, draw

PATH = "/v1/deployments"
RTN = {"type": "quantize.rtn", "bits": 4, "group_size": 32}
REPAIR = {"type": "repair.lowrank", "rank": 4, "calibration_window": 64}
REPORT = "attempt-1/report.json"
TINY = {"model": {"model": "tiny"}, "reference": {"model": "tiny"}}


async def ended(api: Api, job_id: str, report: dict[str, Any]) -> str:
    claim = await claimed(api.state.store, job_id)
    path = api.state.settings.job_dir(job_id) / REPORT
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(report))
    assert await api.state.store.finish(job_id, claim.attempt, report=REPORT, severity="mild")
    return job_id


async def mitigated(api: Api, recommended: list[dict[str, Any]] | None) -> str:
    """A mitigate job that recommends a recipe."""
    job_id, candidate = new_job_id(), {"model": "tiny", "recipe": [RTN]}
    request = MitigateRequest.model_validate(
        {"kind": "mitigate", "reference": TINY["reference"], "candidate": candidate}
    )
    assert (await api.state.store.create(job_id, request)).kind == "created"
    return await ended(api, job_id, mitigate_report() | {"recommended": recommended})


async def compared(api: Api, *steps: dict[str, Any]) -> str:
    """A compare job of a recipe."""
    job_id = await api.submit(candidate={"model": "tiny", "recipe": list(steps)})
    report = compare_report(draw(mean=0.1, documents=4))
    report["provenance"]["candidate"]["recipe"] = json.loads(canonical_json(RECIPE.validate_python(steps)))
    return await ended(api, job_id, report)


async def ask(api: Api, job: str, **changes: Any) -> Any:
    return await api.http.post(PATH, json={"name": "repaired", **TINY, "repair": job, **changes})


@needs_avx512
@pytest.mark.parametrize("kind", ["mitigate", "compare"])
async def test_the_deployment_has_the_recipe_of_the_job(api: Api, kind: str) -> None:
    job = await (mitigated(api, [RTN, REPAIR]) if kind == "mitigate" else compared(api, RTN, REPAIR))
    made = await ask(api, job)
    assert made.status_code == 201, made.text
    assert made.json()["repair"] == job
    recipe = RECIPE.validate_python(made.json()["model"]["recipe"])
    assert recipe == RECIPE.validate_python([RTN, REPAIR])
    stored = await api.state.deployments.get("repaired")
    assert (stored.repair, stored.model.recipe) == (job, recipe)


async def test_what_cannot_be_served_so_is_refused(api: Api) -> None:
    good, nothing = await mitigated(api, [RTN, REPAIR]), await mitigated(api, None)
    queued = await api.submit()
    three = await mitigated(api, [RTN | {"bits": 3}, REPAIR])
    other = {"model": "tiny", "recipe": [RTN]}
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("diag_01M89D9HK3ZV1Q2N7X0M4T8R5C", {}, "job_not_found"),
        ("my-job", {}, "job_not_found"),
        (queued, {}, "job_not_finished"),
        (nothing, {}, "invalid_request"),
        (good, {"reference": {"model": "other"}}, "invalid_request"),
        (good, {"model": other}, "invalid_request"),
        (await compared(api, RTN), {}, "recipe_not_applicable"),
        (await mitigated(api, [RTN, REPAIR | {"iterations": 2}]), {}, "recipe_not_applicable"),
        (three, {}, "packing_unsupported"),
    ]
    for job, changes, code in cases:
        answer = (await ask(api, job, **changes)).json()
        assert (answer.get("code"), answer.get("pointer")) == (code, "/repair"), answer
    assert (await api.http.get(PATH)).json()["data"] == []


@pytest.fixture
def split(settings: Settings) -> Settings:
    text = settings.models_file.read_text()
    settings.models_file.write_text(f"{text}tensor_parallel_size = 2\n")
    return settings


async def test_a_model_that_is_split_is_refused(split: Settings, api: Api) -> None:
    answer = (await ask(api, await mitigated(api, [RTN, REPAIR]))).json()
    assert (answer["code"], answer["pointer"]) == ("invalid_request", "/repair")
    assert "tiny is split" in answer["detail"]


async def test_a_job_of_another_owner_is_not_there(api: Api) -> None:
    job = await mitigated(api, [RTN, REPAIR])
    asked = DeploymentRequest.model_validate({"name": "repaired", **TINY, "repair": job})
    assert (await repaired(api.state, asked, None)).model.recipe
    with refused(ErrorCode.JOB_NOT_FOUND, "/repair"):
        await repaired(api.state, asked, "someone")
