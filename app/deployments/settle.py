"""What becomes of a calibrate job that was asked for a deployment: its profile is promoted, or refused with the reason.

The job runs in a child process that knows no Redis, so it is settled here, after its end was recorded, from its record
and report. Ids of such jobs stand in a set from when the job is made until it is settled. So no crash between the two
loses it. The deployment's events name the jobs that were settled, so each is settled once. The job that a deployment
itself started is concluded by `app.deployments.fit`.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final, cast

from pydantic import ValidationError

from app.contracts.deployment import Deployment, DeploymentEventType
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.job import JobStatus
from app.contracts.request import JobRequest
from app.deployments.store import DeploymentStore, Evidence
from app.jobs import keys
from app.jobs.record import JobRecord
from app.jobs.store import JobStore
from app.kinds.calibrate.report import CalibrateReport

logger = logging.getLogger(__name__)

_TOLD: Final = frozenset({DeploymentEventType.PROMOTED, DeploymentEventType.FITTED, DeploymentEventType.REFUSED})


async def check_target(deployments: DeploymentStore, request: JobRequest) -> None:
    """Whether the deployment that a request names is there and serves the model that is to be calibrated.

    Raises DEPLOYMENT_NOT_FOUND or PROFILE_MISMATCH, at /deployment.
    """
    if request.for_deployment is None:
        return
    try:
        found = await deployments.get(request.for_deployment)
    except HemostatError as error:
        raise HemostatError(error.code, error.detail, hint=error.hint, pointer="/deployment") from error
    if (found.model, found.reference) != (request.candidate, request.reference):
        raise HemostatError(
            ErrorCode.PROFILE_MISMATCH,
            f"The deployment {found.name} serves another model or has another reference than this request.",
            hint="Give the same candidate, recipe and reference as the deployment, or leave deployment out.",
            pointer="/deployment",
        )


async def settle_jobs(deployments: DeploymentStore, jobs: JobStore) -> int:
    """One pass over the jobs that are not settled; how many were. Any number of processes may do it at once."""
    done = 0
    for job_id in sorted(cast("set[str]", await jobs.client.smembers(keys.UNSETTLED))):
        try:
            record = await jobs.get(job_id)
        except HemostatError:  # written by another version: no one can settle it
            record = None
        if record is None:
            await jobs.client.srem(keys.UNSETTLED, job_id)
            continue
        if not record.ended:
            continue
        await _settle(deployments, jobs, record)
        await jobs.client.srem(keys.UNSETTLED, job_id)
        done += 1
    return done


async def _settle(deployments: DeploymentStore, jobs: JobStore, record: JobRecord) -> None:
    job = record.job
    try:
        deployment = await deployments.get(job.deployment or "")
    except HemostatError as error:
        logger.warning("%s was for a deployment that is gone: %s", job.id, error.detail)
        return
    if deployment.fit_job != job.id and not await _told(deployments, deployment.id, job.id):
        await conclude(deployments, jobs, deployment, record)


async def conclude(deployments: DeploymentStore, jobs: JobStore, deployment: Deployment, record: JobRecord) -> None:
    """Promotes what an ended job has proven, or says why nothing is.

    By the job's own report: its profile may have been stored before, by another job that fitted the same.
    """
    job = record.job
    if job.status is not JobStatus.SUCCEEDED:
        what = f"failed: {job.error.detail}" if job.error else "was cancelled."
        await _refuse(deployments, deployment.id, f"The calibrate job {what} ({job.id})", {"job": job.id})
        return
    report = await asyncio.to_thread(_read, jobs.settings.job_dir(job.id) / (record.report or ""))
    if report is None:
        reason = f"The calibrate job's report cannot be read. ({job.id})"
        await _refuse(deployments, deployment.id, reason, {"job": job.id})
        return
    own = next(row for row in report.test.table if row.chosen).own
    evidence: Evidence = {
        "job": job.id,
        "calibrator": report.calibrator,
        "raw_kl": own.raw.mean,
        "calibrated_kl": own.calibrated.mean,
        "saved": own.saved.mean,
        "saved_low": None if own.saved.ci is None else own.saved.ci[0],
        "tokens": report.tokens,
    }
    if not report.test.passed:
        reason = f"The calibrate job proved no correction: {'; '.join(report.test.reasons)} ({job.id})"
        await _refuse(deployments, deployment.id, reason, evidence, report.profile)
        return
    # The deployment's own fit is to replace identity; what a person promoted meanwhile stays.
    replaced = deployment.active_version if deployment.fit_job == job.id else None
    try:
        await deployments.promote(
            deployment.id, report.profile, reason="It passed its test.", evidence=evidence, instead_of=replaced
        )
    except HemostatError as error:
        if error.code is not ErrorCode.DEPLOYMENT_CONFLICT:
            raise
        reason = f"It passed its test, and is not served: {error.detail}"
        await deployments.fit_ended(
            deployment.id, refused=False, reason=reason, version=report.profile, evidence=evidence
        )


async def _refuse(
    deployments: DeploymentStore, deployment_id: str, reason: str, evidence: Evidence, version: str | None = None
) -> None:
    await deployments.fit_ended(deployment_id, refused=True, reason=reason, version=version, evidence=evidence)


async def _told(deployments: DeploymentStore, deployment_id: str, job_id: str) -> bool:
    """Whether an event of the deployment says what became of the job."""
    after = 0
    while events := await deployments.events(deployment_id, after):
        if any(event.type in _TOLD and event.evidence.get("job") == job_id for _, event in events):
            return True
        after = events[-1][0]
    return False


def _read(path: Path) -> CalibrateReport | None:
    try:
        return CalibrateReport.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
