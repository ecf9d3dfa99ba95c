"""What happens when a deployment is asked for or changed: everything is checked before anything is written."""

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from redis.exceptions import NoPermissionError, RedisError, ResponseError

from app.contracts.deployment import (
    CalibrationMode,
    Deployment,
    DeploymentPatch,
    DeploymentRequest,
    PromoteRequest,
    RollbackRequest,
)
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.text import InlineText, SelfText
from app.deployments import hidden
from app.deployments.fit import check_version, conclude_fit, ensure_fit
from app.deployments.repair import at_repair, below, repaired
from app.deployments.settle import settle_jobs
from app.deployments.store import DeploymentStore, is_deployment_id
from app.jobs.service import cancel as cancel_job
from app.jobs.service import hold_of, refusal
from app.jobs.store import Idempotency
from app.kinds.compare.request import CompareRequest
from app.models import looking
from app.models.registry import settings_of
from app.problems import redis_is_away
from app.recipes.base import Calibrated
from app.recipes.recipe import Recipe
from app.settings import Settings
from app.state import State

logger = logging.getLogger(__name__)

SETTLE_S: Final = 1.0
FIT_EVERY: Final = 5  # settlings
TIDY_S: Final = 5.0
LEAST_WINDOW: Final = 2
BY_HAND: Final = "Asked for by hand."


@dataclass(frozen=True)
class Made:
    """A deployment, and whether an earlier request with the same Idempotency-Key had made it."""

    deployment: Deployment
    replayed: bool


async def create(
    state: State, request: DeploymentRequest, owner: str, key: str | None, *, reads: str | None = None
) -> Made:
    """Makes the deployment and starts the fit of its profile. `reads`: whose jobs may be named, None: anyone's. Raises
    everything that `repaired` and `preflight` raise, DEPLOYMENT_EXISTS, and UNAVAILABLE where Redis has no room."""
    hold = await asyncio.to_thread(hold_of, f"deployments {owner}", key, request)
    if (earlier := await _earlier(state, hold)) is not None:
        return earlier
    await state.deployments.memory.require_room()
    request = await repaired(state, request, reads)
    await preflight(request, state.settings, owner)
    try:
        made = await state.deployments.create(request, hold=hold, within_memory=True)
    except HemostatError as error:
        # The same request may have come twice at one time.
        if error.code is ErrorCode.DEPLOYMENT_EXISTS and (earlier := await _earlier(state, hold)) is not None:
            return earlier
        raise
    return Made(await fit(state, made), replayed=False)


async def _earlier(state: State, hold: Idempotency | None) -> Made | None:
    """What an earlier request with the same key made. Raises IDEMPOTENCY_CONFLICT if it had another body."""
    outcome = await state.store.standing(hold) if hold is not None else None
    if outcome is None:
        return None
    if outcome.kind != "replayed":
        raise refusal(state.store, outcome)
    return Made(await state.deployments.get(outcome.job_id), replayed=True)


async def preflight(request: DeploymentRequest, settings: Settings, owner: str) -> None:
    """Everything that can be refused without torch; `owner` of keys has only so many turns.

    Raises what `app.models.looking.check` raises, RECIPE_NOT_APPLICABLE for a step whose text would have to
    be sampled, and for a version PROFILE_NOT_FOUND, PROFILE_CORRUPT or PROFILE_MISMATCH. INVALID_REQUEST for verified
    decoding of a model that is split.
    """
    if is_deployment_id(request.name):
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            "The name has the form of a deployment's id.",
            hint="Give another name.",
            pointer="/name",
        )
    compared = CompareRequest(
        kind="compare",
        reference=request.reference,
        candidate=request.model,
        self_check=True,  # an unmodified model may be served
        window=request.max_model_len or LEAST_WINDOW,
    )
    with _own_fields():
        await looking.check(compared, settings, owner)
    if request.repair is not None:
        with at_repair():
            await looking.check(compared.model_copy(update={"candidate": below(request)}), settings, owner)
    _check_texts(request.model.recipe)
    if request.verify:
        await asyncio.to_thread(_check_whole, request.reference.model, settings)
    if request.version is not None:
        await asyncio.to_thread(check_version, request.version, request.model, request.reference, settings)


def _check_whole(reference: str, settings: Settings) -> None:
    """Both models of verified decoding run as the reference does, in one process."""
    if settings_of(settings, reference).ranks > 1:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"Verified decoding runs on one device, but {reference} is split over several.",
            hint="Leave `verify` out, or run the model on one device.",
            pointer="/verify",
        )


def _check_texts(recipe: Recipe) -> None:
    """What serves has no engine of the reference to sample a step's text with. Redis keeps a deployment's recipe, and
    anyone who may read sees it: it holds no text."""
    for index, step in enumerate(recipe):
        if not isinstance(step, Calibrated):
            continue
        if isinstance(step.calibration, InlineText):
            raise HemostatError(
                ErrorCode.RECIPE_NOT_APPLICABLE,
                "The recipe of a deployment cannot contain its calibration text.",
                hint="Put the text into a file below the text root and name that, or use the shipped calibration text.",
                pointer=f"/model/recipe/{index}/calibration",
            )
        if step.reads_text and isinstance(step.calibration, SelfText):
            raise HemostatError(
                ErrorCode.RECIPE_NOT_APPLICABLE,
                "a deployment cannot sample its recipe's calibration text from the reference",
                hint="give the step a text source that can be read: shipped, file or hub",
                pointer=f"/model/recipe/{index}/calibration",
            )


@contextmanager
def _own_fields() -> Iterator[None]:
    """The candidate of a comparison is a deployment's `model`, its window the deployment's `max_model_len`."""
    try:
        yield
    except HemostatError as error:
        if error.pointer == "/window":
            detail = error.detail.replace("window", "max_model_len", 1)
            hint = error.hint.replace("window", "max_model_len", 1)
            raise HemostatError(error.code, detail, hint=hint, pointer="/max_model_len") from error
        if error.pointer.startswith("/candidate"):
            pointer = "/model" + error.pointer.removeprefix("/candidate")
            raise HemostatError(error.code, error.detail, hint=error.hint, pointer=pointer) from error
        raise


async def fit(state: State, deployment: Deployment) -> Deployment:
    """Starts the fit, where one is wanted. What fails here is done by the sweep: the deployment is made already."""
    try:
        return await ensure_fit(state.deployments, state.store, state.docket, deployment)
    except (RedisError, OSError, HemostatError) as error:
        logger.warning("deployment %s: its fit is not started yet: %s", deployment.name, type(error).__name__)
        return deployment


async def patch(state: State, name_or_id: str, change: DeploymentPatch) -> Deployment:
    """Changes what the patch names; shares are checked with the new number of replicas."""
    deployment_id = await state.deployments.resolve(name_or_id)
    return await fit(state, await state.deployments.patch(deployment_id, change, within_memory=True))


async def freeze(state: State, name_or_id: str) -> Deployment:
    """Keeps the active version. Raises DEPLOYMENT_CONFLICT if calibration is off: the version that comes back with
    another mode is not the active one."""
    current = await state.deployments.get(name_or_id)
    if current.calibration is CalibrationMode.OFF:
        raise HemostatError(
            ErrorCode.DEPLOYMENT_CONFLICT,
            "The deployment's calibration is off, so no active version can be frozen.",
            hint='Set `calibration` to "frozen" with PATCH: the previous version becomes active and stays.',
        )
    return await state.deployments.freeze(current.id)


async def promote(state: State, name_or_id: str, asked: PromoteRequest) -> Deployment:
    """A person's promotion: any profile of this model and reference, also of a frozen deployment."""
    current = await state.deployments.get(name_or_id)
    await asyncio.to_thread(check_version, asked.version, current.model, current.reference, state.settings)
    return await state.deployments.promote(
        current.id, asked.version, reason=asked.reason or BY_HAND, evidence={"manual": True}, manual=True
    )


async def rollback(state: State, name_or_id: str, asked: RollbackRequest) -> Deployment:
    """A person's rollback."""
    current = await state.deployments.get(name_or_id)
    if asked.to is not None:
        try:
            await asyncio.to_thread(check_version, asked.to, current.model, current.reference, state.settings)
        except HemostatError as error:
            raise HemostatError(error.code, error.detail, hint=error.hint, pointer="/to") from error
    return await state.deployments.rollback(
        current.id, reason=asked.reason or BY_HAND, evidence={"manual": True}, to=asked.to, manual=True
    )


async def delete(state: State, name_or_id: str) -> Deployment | None:
    """The deployment as it drains, or None if it is gone at once. The fit that it queued by itself is cancelled."""
    current = await state.deployments.get(name_or_id)
    deployment_id = current.id
    await state.deployments.delete(deployment_id)
    if current.fit_job is not None:
        await _end_fit(state, current.name, current.fit_job)
    try:
        return await state.deployments.get(deployment_id)
    except HemostatError:
        await asyncio.to_thread(remove_files, state.settings, deployment_id)
        return None


async def _end_fit(state: State, name: str, job_id: str) -> None:
    """Cancels the fit of a deployment that is deleted, unless it has ended: no one asked for it, and nothing is left to
    serve what it proves. Where that fails it runs to its end, as a job for no deployment."""
    try:
        await cancel_job(state.store, state.docket, job_id, None)
    except (RedisError, OSError, HemostatError) as error:
        logger.warning("deployment %s: its fit is not cancelled: %s", name, type(error).__name__)


def remove_files(settings: Settings, deployment_id: str) -> None:
    """Removes the deployment's folder, if there is one: hidden states and what its processes keep. Not its profiles."""
    folder = settings.home / "deployments" / deployment_id
    if is_deployment_id(deployment_id) and folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)


async def run(state: State) -> None:
    """Once a second, until the process is asked to go: notices leases that ran out, and does what a crash left undone.

    Any number of API processes may do it at once: each change is made, and told, once.
    """
    turn = 0
    while not state.stopping.is_set():
        with _goes_on("this gateway could not be announced"):
            await state.deployments.announce_gateway()
        with _goes_on("deployments could not be settled"):
            await sweep(state, fits=turn % FIT_EVERY == 0)
        turn += 1
        await _rest(state, SETTLE_S)


async def keep_tidy(state: State) -> None:
    """Every five seconds, until the process is asked to go: token ids of samples leave the disk of Redis, where that is
    due.

    Beside `run`, not in it: it goes through all keys of Redis, and no lease waits for that.
    """
    suspected = False
    while not state.stopping.is_set():
        with _goes_on("the disk of Redis could not be tidied"):
            if not suspected:
                await state.deployments.suspect_disk()
                suspected = True
            await tidy_disk(state.deployments)
        await _rest(state, TIDY_S)


@contextmanager
def _goes_on(fault: str) -> Iterator[None]:
    """What fails is done by the next turn. That Redis is away is reported elsewhere."""
    try:
        yield
    except (RedisError, OSError) as error:
        if isinstance(error, RedisError) and not redis_is_away(error):
            logger.exception(fault)
    except Exception:
        logger.exception(fault)


async def _rest(state: State, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(state.stopping.wait(), seconds)


async def sweep(state: State, *, fits: bool = True) -> None:
    """One pass over all deployments."""
    if fits:  # first: it has to be done while Redis is away, too
        await asyncio.to_thread(hidden.sweep_all, state.settings)
    for deployment_id in await state.deployments.ids():
        if await state.deployments.settle(deployment_id) == "forgotten":
            await asyncio.to_thread(remove_files, state.settings, deployment_id)
    if not fits:
        return
    await settle_jobs(state.deployments, state.store)
    for deployment in await state.deployments.list():
        await conclude_fit(state.deployments, state.store, deployment)
        await fit(state, await state.deployments.get(deployment.id))


async def tidy_disk(deployments: DeploymentStore) -> None:
    """Token ids of samples leave the disk of Redis, where that is due. Where Redis refuses, the log says so, and what
    to do where that is known."""
    try:
        await deployments.tidy_disk()
    except ResponseError as error:
        if redis_is_away(error):
            raise
        remedy = " Its user needs INFO, SCAN and BGREWRITEAOF (+info +scan +bgrewriteaof in its ACL)."
        logger.warning(
            "The append-only file of Redis is not written again (%s): token ids of sampled requests stay on its disk "
            "until it does so by itself.%s",
            error,
            remedy if isinstance(error, NoPermissionError) else "",
        )
