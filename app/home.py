"""`/`: the page that a browser gets which opens the service's root."""

import asyncio
from typing import Final

from fastapi import APIRouter, Depends, Request
from redis.exceptions import RedisError
from starlette.responses import Response

from app import problems
from app.deployments.profile_routes import PATH as PROFILES
from app.deployments.routes import PATH as DEPLOYMENTS
from app.jobs.filters import Filters
from app.jobs.record import JOBS_PATH
from app.jobs.representation import HTML, PAGE_POLICY
from app.openapi import Answer, answers
from app.security.scopes import Needs, Scope, key_of
from app.state import state_of
from app.web.home import Place, render_home

SHOWN_JOBS: Final = 20
PLACES: Final = (
    Place(JOBS_PATH, "every job, page by page"),
    Place(DEPLOYMENTS, "what is served, with its replicas and calibration"),
    Place(PROFILES, "calibration profiles"),
    Place("/v1/models", "the deployments as clients of OpenAI see them"),
    Place("/openapi.json", "the whole contract of this service (OpenAPI 3.1), with examples"),
    Place("/v1/diagnosis/schemas/report", "the JSON schema of a report"),
    Place("/readyz", "whether jobs can be taken, and by which workers"),
    Place("/metrics", "metrics, for Prometheus and the board"),
)
MISSING: Final = "Redis does not answer: jobs and deployments cannot be listed."

router = APIRouter(tags=["service"], default_response_class=Response, dependencies=[Depends(Needs(Scope.READ))])


@router.get(
    "/",
    summary="The start page",
    responses=answers(
        Answer(200, "<!doctype html>…", media_type=HTML, description="the latest jobs, deployments, and links"),
        errors=[],
    ),
)
async def home(request: Request) -> Response:
    """For a browser: the latest jobs with links to their reports, the deployments, and links to everything else."""
    state = state_of(request)
    missing = ""
    try:
        records, _ = await state.store.page(limit=SHOWN_JOBS, filters=Filters(owner=key_of(request).reads))
        deployments = await state.deployments.list()
    except RedisError as error:
        if not problems.redis_is_away(error):
            raise
        records, deployments, missing = [], [], MISSING
    jobs = [record.job for record in records]
    page = await asyncio.to_thread(lambda: render_home(jobs, deployments, PLACES, missing=missing))
    return Response(page, media_type=HTML, headers={"content-security-policy": PAGE_POLICY})
