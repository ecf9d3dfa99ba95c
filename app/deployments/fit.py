"""How a deployment comes by its calibration profile: one that is there already, else one job that fits it.

Called at creation, and by the sweep for what a crash left undone.
"""

import asyncio
import logging
from pathlib import Path
from typing import Final

from docket import Docket

from app.contracts.deployment import IDENTITY, CalibrationMode, Deployment, DeploymentState
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.profile import Profile
from app.contracts.request import CandidateModel, ReferenceModel
from app.deployments.profiles import ProfileFiles
from app.deployments.settle import conclude
from app.deployments.store import DeploymentStore
from app.jobs import queue
from app.jobs.ids import new_job_id
from app.jobs.store import JobStore
from app.kinds.calibrate.request import CalibrateRequest
from app.models import looking
from app.models.recipes import recipe_fingerprint
from app.models.registry import load_registry
from app.settings import Settings

OWNER: Final = ":fits"  # of the jobs; no key's owner can be named so

logger = logging.getLogger(__name__)


def belongs(profile: Profile, model: CandidateModel, reference: ReferenceModel) -> bool:
    """Whether a profile was fitted for this model, by alias and recipe, and this reference."""
    fitted = profile.fit.candidate
    return (
        fitted.model == model.model
        and fitted.recipe_fingerprint == recipe_fingerprint(model.recipe)
        and profile.fit.reference.model == reference.model
    )


def check_version(version: str, model: CandidateModel, reference: ReferenceModel, settings: Settings) -> None:
    """Reads the disk. Raises PROFILE_NOT_FOUND, PROFILE_CORRUPT or PROFILE_MISMATCH, at the pointer /version."""
    if version == IDENTITY:
        return
    try:
        profile = ProfileFiles(settings).get(version)
    except HemostatError as error:
        raise HemostatError(error.code, error.detail, hint=error.hint, pointer="/version") from error
    if not belongs(profile, model, reference):
        fitted = profile.fit
        raise HemostatError(
            ErrorCode.PROFILE_MISMATCH,
            f"The profile {version} was fitted for {_named(fitted.candidate.model, fitted.candidate.recipe)} and the "
            f"reference {fitted.reference.model}, not for {_named(model.model, model.recipe)} and {reference.model}.",
            pointer="/version",
        )


def _named(model: str, recipe: tuple[object, ...]) -> str:
    return f"{model} with {len(recipe)} recipe step{'' if len(recipe) == 1 else 's'}" if recipe else model


def proven(settings: Settings, model: CandidateModel, reference: ReferenceModel) -> Profile | None:
    """The newest profile of these weights that passed a test as strict as a deployment's own. Reads the disk.

    Of jobs for a deployment only: other jobs need no scope `deploy`, and their text is anybody's.
    """
    tolerance = CalibrateRequest.model_fields["tolerance"].default
    fitting = (
        profile
        for profile in ProfileFiles(settings).list()
        if profile.deployment is not None
        and profile.test is not None
        and profile.test.passed
        and profile.test.tolerance <= tolerance
        and belongs(profile, model, reference)
        and not replaced(profile, settings)
    )
    return next(fitting, None)


def replaced(profile: Profile, settings: Settings) -> bool:
    """Whether other weights were put under the names of a profile's models since it was made.

    Files that were there before the profile are not read: hashing them takes a second per GB. Newer ones are compared
    by their hash; those of a recipe are of the reference's weights where both have one name, else not told. Models that
    cannot be read are left to anyone who loads them.
    """
    fit = profile.fit
    expected = {fit.reference.model: fit.reference.weights_fingerprint}
    if fit.candidate.model not in expected:
        expected[fit.candidate.model] = "" if fit.candidate.recipe else fit.candidate.weights_fingerprint
    try:
        registry = load_registry(settings.models_file)
        for model, weights in expected.items():
            path = registry.resolve(model).checkpoint_path()
            if _changed_at(path) > profile.created_at and looking.weights_of(path) != weights:
                return True
    except (HemostatError, OSError):
        return False
    return False


def _changed_at(path: Path) -> float:
    """When the configuration or a weight file was last written, or put there."""
    files = [file for file in path.iterdir() if file.suffix == ".safetensors" or file.name == "config.json"]
    return max(max(stat.st_mtime, stat.st_ctime) for stat in (file.stat() for file in files))


def calibrate_request(deployment: Deployment) -> CalibrateRequest:
    """The job that fits a deployment's profile: shipped text, the usual calibrators."""
    return CalibrateRequest(
        kind="calibrate",
        reference=deployment.reference,
        candidate=deployment.model,
        deployment=deployment.id,
        metadata={"deployment": deployment.name},
    )


def wants_fit(deployment: Deployment) -> bool:
    """Whether it serves identity only because nothing has been fitted yet."""
    return (
        deployment.calibration is CalibrationMode.AUTO
        and not deployment.unmodified
        and deployment.active_version == IDENTITY
        and deployment.activated_at is None
        and not deployment.fit_reason
        and deployment.state is not DeploymentState.DRAINING
    )


async def ensure_fit(
    deployments: DeploymentStore, jobs: JobStore, docket: Docket, deployment: Deployment
) -> Deployment:
    """Serves a proven profile that is there, else sees that one job fits it. Repeating it changes nothing: a job whose
    record is gone is not made again, whatever became of it."""
    if not wants_fit(deployment):
        return deployment
    if deployment.fit_job is None:
        served = await _serve_proven(deployments, deployment)
        if served is not None:
            return served
    job_id = await deployments.start_fit(deployment.id, deployment.fit_job or new_job_id())
    made = await deployments.was_fit_made(deployment.id, job_id)
    if await jobs.get(job_id) is not None:
        if not made:
            await deployments.fit_made(deployment.id, job_id)
    elif made:
        return await _give_up(deployments, deployment, job_id)
    else:
        outcome = await jobs.create(job_id, calibrate_request(deployment), owner=OWNER)
        if outcome.kind != "created":
            logger.warning("deployment %s: its calibrate job waits until the queue has room", deployment.name)
        else:
            if outcome.its_turn:
                await queue.submit(docket, job_id)
            await deployments.fit_made(deployment.id, job_id)
    return await deployments.get(deployment.id)


async def _serve_proven(deployments: DeploymentStore, deployment: Deployment) -> Deployment | None:
    """Promotes a proven profile that is there."""
    found = await asyncio.to_thread(proven, deployments.settings, deployment.model, deployment.reference)
    if found is None:
        return None
    reason = f"A proven profile of this model and reference was there: {found.version}."
    # To look took a while: what a person promoted meanwhile stays.
    return await deployments.promote(
        deployment.id,
        found.version,
        reason=reason,
        evidence={"fitted": False},
        instead_of=deployment.active_version,
    )


async def _give_up(deployments: DeploymentStore, deployment: Deployment, job_id: str) -> Deployment:
    """The job ended, or was deleted, while no one concluded it (calibration was off); its record is gone since. What it
    proved is among the profiles."""
    served = await _serve_proven(deployments, deployment)
    if served is not None:
        return served
    why = "The calibrate job proved nothing that is kept, and its record is gone: submit one with `deployment`."
    reason = f"{why} ({job_id})"
    await deployments.fit_ended(deployment.id, refused=True, reason=reason, evidence={"job": job_id})
    return await deployments.get(deployment.id)


async def conclude_fit(deployments: DeploymentStore, jobs: JobStore, deployment: Deployment) -> None:
    """Says how the job ended where it did not say so itself: it failed, was cancelled, or its worker died too late."""
    if deployment.fit_job is None or not wants_fit(deployment):
        return
    record = await jobs.get(deployment.fit_job)
    if record is not None and record.ended:
        await conclude(deployments, jobs, deployment, record)
