"""The repair of a job, served beside packed weights: which recipe that is, and whether it can be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pydantic import ValidationError

from app.contracts.deployment import DeploymentRequest
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.request import CandidateModel
from app.jobs import results
from app.jobs.record import JobRecord
from app.jobs.service import find
from app.models.registry import settings_of
from app.models.steps.repair import packed_base
from app.recipes.recipe import RECIPE, Recipe
from app.settings import Settings
from app.state import State

POINTER: Final = "/repair"


async def repaired(state: State, request: DeploymentRequest, owner: str | None) -> DeploymentRequest:
    """The request with the recipe of the job that it names; as it is if it names none. `owner` None: of anyone's jobs.

    Raises JOB_NOT_FOUND, JOB_NOT_FINISHED, ARTIFACT_NOT_FOUND, INVALID_REQUEST for another model or reference than the
    job's and for a split model, and what `packed_base` raises.
    """
    if request.repair is None:
        return request
    with at_repair():
        record = await find(state.store, request.repair, owner)
        recipe = await asyncio.to_thread(_recipe_of, record, state.settings)
        _check_models(request, record, recipe, state.settings)
        packed_base(recipe, POINTER)
    model = CandidateModel(model=request.model.model, recipe=recipe)
    return request.model_copy(update={"model": model})


def below(request: DeploymentRequest) -> CandidateModel:
    """The packed weights that the request's repair is served beside."""
    return CandidateModel(model=request.model.model, recipe=packed_base(request.model.recipe, POINTER))


def _recipe_of(record: JobRecord, settings: Settings) -> Recipe:
    """What a mitigate job recommends, or what a compare job has compared."""
    report = json.loads(results.read_report(record, settings))
    kind = record.job.kind
    if kind not in ("mitigate", "compare"):
        raise _invalid(f"The job {record.job.id} is of kind {kind}.", "Name a mitigate or a compare job.")
    found = report["recommended"] if kind == "mitigate" else report["provenance"]["candidate"]["recipe"]
    if not found:
        raise _invalid(f"The job {record.job.id} has no recipe to serve.", "Name a job that has made a repair.")
    try:
        return RECIPE.validate_python(found)
    except ValidationError:
        raise _invalid(
            f"The recipe of the job {record.job.id} cannot be read: its calibration text is not kept.",
            "Use shipped, file or hub text in the job.",
        ) from None


def _check_models(request: DeploymentRequest, record: JobRecord, recipe: Recipe, settings: Settings) -> None:
    job = record.job
    if (request.model.model, request.reference.model) != (job.candidate.model, job.reference.model):
        raise _invalid(
            f"The repair is of {job.candidate.model} towards {job.reference.model}, and the request names "
            f"{request.model.model} and {request.reference.model}.",
            f"Give the model {job.candidate.model} and the reference {job.reference.model}.",
        )
    if request.model.recipe not in ((), recipe):
        raise _invalid("The repair's job has another recipe than the request.", "Leave the recipe out.")
    if settings_of(settings, request.model.model).tensor_parallel_size > 1:
        raise _invalid(
            f"A repair is served on one device, but {request.model.model} is split over several.",
            "Leave `repair` out, and deploy the recipe itself.",
        )


def _invalid(detail: str, hint: str) -> HemostatError:
    return HemostatError(ErrorCode.INVALID_REQUEST, detail, hint=hint, pointer=POINTER)


@contextmanager
def at_repair() -> Iterator[None]:
    """What is wrong with the job, or with what it has made, is wrong with the field that names it."""
    try:
        yield
    except HemostatError as error:
        raise HemostatError(error.code, error.detail, hint=error.hint, pointer=POINTER) from error
