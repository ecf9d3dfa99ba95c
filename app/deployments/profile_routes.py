"""/v1/calibration/profiles: fitted corrections over HTTP."""

import asyncio
from typing import Any, Final

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from app.contracts.deployment import Deployment
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.profile import Profile, ProfilePage
from app.deployments import profile_examples as examples
from app.deployments.profiles import ProfileFiles, not_found
from app.openapi import JSON, Answer, answers
from app.security.scopes import Needs, Scope, key_of
from app.state import State, state_of

PATH: Final = "/v1/calibration/profiles"
_READ: Final = [ErrorCode.PROFILE_NOT_FOUND, ErrorCode.PROFILE_CORRUPT, ErrorCode.UNAVAILABLE]

router = APIRouter(tags=["calibration"], default_response_class=Response, dependencies=[Depends(Needs(Scope.READ))])
changes = APIRouter(tags=["calibration"], default_response_class=Response, dependencies=[Depends(Needs(Scope.DEPLOY))])


@router.get(
    PATH,
    summary="List calibration profiles, newest first",
    responses=answers(Answer(200, examples.PAGE, "ProfilePage"), errors=[ErrorCode.UNAVAILABLE]),
)
async def list_profiles(request: Request) -> Response:
    """Each with its fit and the results of its test."""
    profiles = await asyncio.to_thread(_files(request).list)
    page = ProfilePage(data=tuple([profile for profile in profiles if await _shown(request, profile)]))
    return Response(page.model_dump_json(), media_type=JSON)


@router.get(
    PATH + "/{version}",
    summary="One calibration profile",
    responses=answers(Answer(200, examples.PROFILE, "Profile"), errors=_READ),
)
async def get_profile(request: Request, version: str) -> Response:
    """The record of its fit, and the comparison table of its test."""
    profile = await _get(request, version)
    return Response(profile.model_dump_json(), media_type=JSON)


@changes.delete(
    PATH + "/{version}",
    status_code=204,
    summary="Delete a calibration profile",
    responses=answers(
        Answer(204, None, description="the profile is deleted"),
        errors=[ErrorCode.PROFILE_NOT_FOUND, ErrorCode.PROFILE_IN_USE, ErrorCode.UNAVAILABLE],
    ),
)
async def delete_profile(request: Request, version: str) -> Response:
    """Refused while a deployment serves it, tries it, or would go back to it."""
    files = _files(request)
    await asyncio.to_thread(files.folder, version)
    user = await _user(state_of(request), version)
    if user is not None:
        deployment, how = user
        raise HemostatError(
            ErrorCode.PROFILE_IN_USE,
            f"The deployment {deployment.name} {how} {version}.",
            hint="Promote another version, roll back, or delete the deployment first.",
        )
    await asyncio.to_thread(files.delete, version)
    return Response(status_code=204)


async def _user(state: State, version: str) -> tuple[Deployment, str] | None:
    for deployment in await state.deployments.list():
        if (how := use_of(deployment, version)) is not None:
            return deployment, how
    return None


def use_of(deployment: Deployment, version: str) -> str | None:
    """How a deployment uses a version, as a verb; None if it does not."""
    uses: dict[str, Any] = {
        "serves": [deployment.active_version],
        "goes back to": [deployment.previous_version],
        "tries": [deployment.shadow.trial if deployment.shadow else None],
        "has loaded": [loaded for replica in deployment.running for loaded in replica.versions],
    }
    return next((how for how, versions in uses.items() if version in versions), None)


async def _get(request: Request, version: str) -> Profile:
    profile = await asyncio.to_thread(_files(request).get, version)
    if not await _shown(request, profile):
        raise not_found(version)
    return profile


async def _shown(request: Request, profile: Profile) -> bool:
    """All keys see a deployment's profiles; those of other jobs, the job's owner and keys with `deploy`."""
    key = key_of(request)
    if profile.deployment is not None or key.may(Scope.DEPLOY):
        return True
    return profile.job is not None and await state_of(request).store.status(profile.job, key.reads) is not None


def _files(request: Request) -> ProfileFiles:
    return ProfileFiles(state_of(request).settings)
