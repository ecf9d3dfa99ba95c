"""Liveness, readiness and metrics."""

import asyncio
import contextlib
import logging
import shutil
import time
from typing import Any, cast

from fastapi import APIRouter, Depends, Request
from redis.exceptions import RedisError
from starlette.responses import JSONResponse, Response

from app import problems
from app.contracts.deployment import Deployment
from app.contracts.errors import ErrorCode, HemostatError
from app.instance import make_instance
from app.jobs.workers import WorkerInfo, living
from app.memory import Usage
from app.models.registry import ModelEntry, load_registry
from app.openapi import Answer, answers
from app.security.scopes import KEY, Needs, Scope
from app.state import State, state_of

logger = logging.getLogger(__name__)

REDIS_PATIENCE_S = 2.0
CACHE_S = 1.0
Readiness = tuple[dict[str, dict[str, Any]], list[ModelEntry], list[WorkerInfo], list[Deployment]]
Seen = tuple[list[WorkerInfo], list[Deployment], Usage]
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

router = APIRouter(tags=["service"])

_WORKER = {
    "id": "gpu-1:4711",
    "host": "gpu-1",
    "pid": 4711,
    "version": "0.1.0",
    "engine": "vllm 0.32.0",
    "device": "cuda",
    "card": "NVIDIA H100 80GB HBM3",
    "devices": ["1"],
    "starting": False,
    "job": None,
    "helping": None,
    "draining": False,
    "metrics_url": "http://127.0.0.1:8322/metrics",
    "started_at": 1795612264.0,
    "seen_at": 1795612300.5,
}
_DEPLOYMENT = {"name": "smollm2-135m-rtn4", "state": "ready", "reason": "", "version": "cal-5f0c2d9a4b71e836"}
_CHECKS = {
    "api": {"ok": True, "detail": "serving"},
    "redis": {"ok": True, "detail": "answers"},
    "jobs": {"ok": True, "detail": "are taken"},
    "models": {"ok": True, "detail": "2 models: smollm2-135m, smollm2-135m-w4"},
}
_HOME = {
    "instance": "9f86d081884c7d65",
    "home": "/home/ann/.local/share/hemostat",
    "models": [{"alias": "smollm2-135m", "from": "/srv/models/smollm2-135m", "dtype": "bfloat16"}],
}


@router.head("/livez", include_in_schema=False)
@router.get(
    "/livez",
    summary="Whether the process is alive",
    responses=answers(Answer(200, {"status": "alive"}), errors=[ErrorCode.INTERNAL], guarded=False),
)
async def livez() -> dict[str, str]:
    """200: its event loop runs. It does not check Redis: a restart of this process would not repair Redis."""
    return {"status": "alive"}


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    summary="Whether the service answers requests and takes jobs",
    responses=answers(
        Answer(
            200, {"status": "ready", "checks": _CHECKS, **_HOME, "workers": [_WORKER], "deployments": [_DEPLOYMENT]}
        ),
        errors=[ErrorCode.UNAVAILABLE, ErrorCode.INTERNAL],
        guarded=False,
        members={
            "status_text": "not ready",
            "checks": _CHECKS | {"redis": {"ok": False, "detail": "does not answer"}},
            **_HOME,
            "workers": [],
            "deployments": [],
        },
    ),
)
async def readyz(request: Request) -> Response:
    """200 while API, Redis and models.toml are good; `degraded` if it refuses only jobs, because Redis is nearly full.
    Workers and deployments are listed, not required.

    `instance` and `home` identify the service. If it has API keys, a request without a key gets only the name of the
    failing part. A key without the scope `read` also gets `instance`.
    """
    checks, models, workers, deployments = await _check(request)
    key = request.scope.get(KEY)
    home = state_of(request).settings.home.expanduser().resolve()
    if key is None or not key.may(Scope.READ):
        checks = {name: {"ok": check["ok"], "detail": ""} for name, check in checks.items()}
        models, workers, deployments = [], [], []
    parts: dict[str, Any] = {
        "checks": checks,
        "instance": None if key is None else make_instance(home),
        "home": None if key is None else str(home),
        "models": [one.shown() for one in models],
        "workers": [worker.model_dump() for worker in workers],
        "deployments": [
            {"name": one.name, "state": one.state.value, "reason": one.reason, "version": one.active_version}
            for one in deployments
        ],
    }
    failing = [name for name, check in checks.items() if not check["ok"]]
    if failing in ([], ["jobs"]):  # without jobs, chat is answered: no load balancer is to leave this service
        return JSONResponse({"status": "degraded" if failing else "ready", **parts})
    told = "; ".join(f"{name}: {checks[name]['detail'] or 'failing'}" for name in failing)
    cures = "; ".join(checks[name].get("hint") or f"look after {name}" for name in failing)
    error = HemostatError(ErrorCode.UNAVAILABLE, f"Not ready. {told}", hint=cures, retry_after_s=2)
    return problems.response(request.scope, error, status_text="not ready", **parts)


async def _living(state: State) -> Seen:
    """What Redis says, as it was at most a second ago: who asks often, as anybody may, asks this process instead."""
    kept = state.readiness
    async with kept.lock:
        if time.monotonic() - kept.at >= CACHE_S:
            workers, deployments = await living(state.redis), await state.deployments.list()
            kept.value, kept.at = (workers, deployments, await state.store.memory.usage()), time.monotonic()
    return cast(Seen, kept.value)


async def _check(request: Request) -> Readiness:
    state = state_of(request)
    stopping = state.stopping.is_set()
    checks: dict[str, dict[str, Any]] = {
        "api": {"ok": not stopping, "detail": "shutting down" if stopping else "serving"}
    }
    models: list[ModelEntry] = []
    workers: list[WorkerInfo] = []
    deployments: list[Deployment] = []
    try:
        async with asyncio.timeout(REDIS_PATIENCE_S):
            workers, deployments, usage = await _living(state)
        checks["redis"] = {"ok": True, "detail": "answers"}
        checks["jobs"] = {"ok": True, "detail": "are taken"}
        if usage.high:
            what = f"are refused: {usage.told}"
            checks["jobs"] = {
                "ok": False,
                "detail": what,
                "hint": ("delete jobs that are not needed, or raise maxmemory"),
            }
    except (RedisError, OSError, TimeoutError) as error:
        logger.warning("readiness: Redis: %s", type(error).__name__)
        checks["redis"] = {"ok": False, "detail": problems.redis_fault(error)}
    try:
        registry = load_registry(state.settings.models_file)
        models = [registry.resolve(alias) for alias in registry.aliases]
        many = f"{len(models)} model{'' if len(models) == 1 else 's'}"
        checks["models"] = {"ok": True, "detail": f"{many}: {', '.join(registry.aliases[:20])}"}
    except HemostatError as error:
        checks["models"] = {"ok": False, "detail": error.detail, "hint": error.hint}
    return checks, models, workers, deployments


@router.get(
    "/metrics",
    dependencies=[Depends(Needs(Scope.METRICS))],
    summary="Prometheus metrics of the API",
    response_class=Response,
    responses=answers(
        Answer(200, "# HELP hemostat_redis_up 1 while Redis answers, else 0.\n", media_type="text/plain"),
        errors=[ErrorCode.INTERNAL],
        limited=False,
    ),
)
async def metrics(request: Request) -> Response:
    """Text exposition. The queue is read from Redis for each scrape; without Redis its series are absent."""
    state = state_of(request)
    queue = state.telemetry.queue
    with contextlib.suppress(OSError):
        queue.free_bytes = shutil.disk_usage(state.settings.home).free
    try:
        async with asyncio.timeout(REDIS_PATIENCE_S):
            workers = [worker for worker in await living(state.redis) if not worker.starting]
            queue.statistics, queue.workers = await state.store.statistics(), len(workers)
            queue.memory = await state.store.memory.usage()
            await state.telemetry.deployments.read(state.deployments)
    except (RedisError, OSError, TimeoutError):
        queue.statistics = state.telemetry.deployments.deployments = None
    return Response(state.telemetry.render(), media_type=METRICS_TYPE)
