"""A calibrate job that was asked for a deployment: promoted or refused, once, whatever crashes in between."""

import json
from typing import Any

import pytest

from app.contracts.deployment import CalibrationMode, Deployment, DeploymentEvent, DeploymentEventType, DeploymentPatch
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.job import job_error
from app.deployments.settle import check_target, conclude, settle_jobs
from app.deployments.store import DeploymentStore
from app.jobs import keys
from app.jobs.ids import new_job_id
from app.jobs.store import JobStore
from app.kinds.calibrate.report import CalibrateReport
from app.kinds.calibrate.request import CalibrateRequest
from tests.integration.app.jobs.stored import claimed, got
from tests.support.calibration_reports import calibrate_report

REPORT = "attempt-1/report.json"


def asked(made: Deployment, /, **changes: Any) -> CalibrateRequest:
    return CalibrateRequest.model_validate(
        {
            "kind": "calibrate",
            "reference": made.reference.model_dump(),
            "candidate": made.model.model_dump(),
            "deployment": made.name,
        }
        | changes
    )


async def run(store: JobStore, request: CalibrateRequest, *, passed: bool = True) -> str:
    """A job that has ended as a worker ends one."""
    job_id = new_job_id()
    assert (await store.create(job_id, request)).kind == "created"
    claim = await claimed(store, job_id, "worker")
    assert claim.request == request
    report = calibrate_report(passed=passed, deployment=request.deployment) | {"job": job_id}
    path = store.settings.job_dir(job_id) / REPORT
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(report))
    assert await store.finish(job_id, claim.attempt, report=REPORT, severity="moderate")
    return job_id


async def events(store: DeploymentStore, deployment: Deployment) -> list[DeploymentEvent]:
    kinds = {DeploymentEventType.PROMOTED, DeploymentEventType.REFUSED, DeploymentEventType.FITTED}
    return [event for _, event in await store.events(deployment.id) if event.type in kinds]


async def test_a_proven_profile_is_promoted(deployments: DeploymentStore, store: JobStore, made: Deployment) -> None:
    job_id = await run(store, asked(made))
    assert await settle_jobs(deployments, store) == 1
    found = await deployments.get(made.id)
    report = CalibrateReport.model_validate(calibrate_report())
    assert found.active_version == report.profile
    event = (await events(deployments, made))[-1]
    assert event.type is DeploymentEventType.PROMOTED
    assert event.evidence["job"] == job_id
    assert event.evidence["saved"] == pytest.approx(0.326 * 0.31)
    record = await got(store, job_id)
    assert record.job.deployment == made.name


async def test_what_is_not_proven_is_refused(deployments: DeploymentStore, store: JobStore, made: Deployment) -> None:
    job_id = await run(store, asked(made), passed=False)
    await settle_jobs(deployments, store)
    found = await deployments.get(made.id)
    assert found.active_version == "identity"
    assert "on domain german the correction changes KL by +0.018 nats" in found.fit_reason
    assert found.fit_reason.endswith(f"({job_id})")  # which is not the deployment's own
    assert [event.type for event in await events(deployments, made)] == [DeploymentEventType.REFUSED]


async def test_a_job_without_result_says_so(deployments: DeploymentStore, store: JobStore, made: Deployment) -> None:
    ids = {ended: new_job_id() for ended in ("failed", "cancelled")}
    for ended, job_id in ids.items():
        await store.create(job_id, asked(made, seed=len(ended)))
        if ended == "cancelled":
            await store.cancel(job_id)
        else:
            claim = await claimed(store, job_id, "worker")
            await store.fail(job_id, claim.attempt, job_error(ErrorCode.ENGINE_FAILED, "The engine fell over."))
        await settle_jobs(deployments, store)
    reasons = [event.reason for event in await events(deployments, made)]
    assert reasons == [
        f"The calibrate job failed: The engine fell over. ({ids['failed']})",
        f"The calibrate job was cancelled. ({ids['cancelled']})",
    ]


async def test_a_running_job_is_left_alone(deployments: DeploymentStore, store: JobStore, made: Deployment) -> None:
    job_id = new_job_id()
    await store.create(job_id, asked(made))
    await store.claim(job_id, "worker")
    assert await settle_jobs(deployments, store) == 0
    assert await store.client.smembers(keys.UNSETTLED) == {job_id}


async def test_a_frozen_deployment_keeps_its_version_and_is_told_of_the_other(
    deployments: DeploymentStore, store: JobStore, made: Deployment
) -> None:
    await deployments.patch(made.id, DeploymentPatch(calibration=CalibrationMode.FROZEN))
    await run(store, asked(made))
    await settle_jobs(deployments, store)
    assert (await deployments.get(made.id)).active_version == "identity"
    event = (await events(deployments, made))[-1]
    assert event.type is DeploymentEventType.FITTED
    assert "frozen" in event.reason


async def test_an_id_without_a_job_is_dropped(deployments: DeploymentStore, store: JobStore) -> None:
    await store.client.sadd(keys.UNSETTLED, new_job_id())
    await settle_jobs(deployments, store)
    assert await store.client.smembers(keys.UNSETTLED) == set()


async def test_the_fit_that_the_deployment_started_itself_is_concluded_elsewhere(
    deployments: DeploymentStore, store: JobStore, made: Deployment
) -> None:
    job_id = await run(store, asked(made))
    await deployments.start_fit(made.id, job_id)
    await settle_jobs(deployments, store)
    assert await events(deployments, made) == []


async def test_a_fit_of_its_own_does_not_overrule_what_a_person_promoted_as_it_ended(
    deployments: DeploymentStore, store: JobStore, made: Deployment
) -> None:
    job_id = await run(store, asked(made))
    await deployments.start_fit(made.id, job_id)
    read, record = await deployments.get(made.id), await store.get(job_id)
    assert record is not None
    by_hand = "cal-000000000000000a"
    await deployments.promote(made.id, by_hand, reason="by hand", manual=True)
    await conclude(deployments, store, read, record)
    assert (await deployments.get(made.id)).active_version == by_hand
    event = (await events(deployments, made))[-1]
    assert event.type is DeploymentEventType.FITTED
    assert "is not served: Another version came into force meanwhile." in event.reason


async def test_a_job_for_another_model_or_for_none_is_refused(deployments: DeploymentStore, made: Deployment) -> None:
    await check_target(deployments, asked(made))
    await check_target(deployments, asked(made, deployment=None))
    for changes, code in (
        ({"deployment": "nobody"}, ErrorCode.DEPLOYMENT_NOT_FOUND),
        ({"candidate": {"model": "tiny", "recipe": []}, "self_check": True}, ErrorCode.PROFILE_MISMATCH),
    ):
        with pytest.raises(HemostatError) as caught:
            await check_target(deployments, asked(made, **changes))
        assert (caught.value.code, caught.value.pointer) == (code, "/deployment")
