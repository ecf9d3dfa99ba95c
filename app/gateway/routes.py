"""OpenAI's routes: read, check, hand over to an exchange. Errors are raised and answered in OpenAI's envelope."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from app.bodies import TooLargeError
from app.contracts.deployment import Deployment
from app.contracts.errors import ErrorCode, HemostatError
from app.gateway import bounds, options, sampling, verified
from app.gateway import openapi as page
from app.gateway.body import PROMPTS, model_name, parse, require
from app.gateway.core import Gateway
from app.gateway.errors import ApiError, from_replica, invalid, response
from app.gateway.exchange import PATHS, Exchange
from app.gateway.replicas import own_version, serving_replicas
from app.gateway.rewrite import Route
from app.gateway.upstream import ReplicaLostError, ReplicaSilentError
from app.security.scopes import Needs, Scope, key_of
from app.state import State

_NAME: Final = "hemostat_gateway"
_ASKED: Final = {"/tokenize": ("prompt", "messages"), "/detokenize": ("tokens",)}  # one of these
_MAX_EXTRA: Final = 32  # entries of vllm_xargs
_STATE: Final = {
    "previous_response_id": "responses are not stored, so none can be continued; send the whole input",
    "conversation": "conversations are not stored; send the whole input",
    "prompt": "prompt templates are not stored; send the whole input",
    "previous_input_messages": "send the whole conversation as `input`",
}
_TOOLS: Final = ("function",)


def _check_kept(body: dict[str, Any]) -> None:
    """Raises ApiError (400) for what of the Responses API needs state, or tools of the server's: it keeps nothing."""
    if body.get("store"):
        raise invalid("`store` is true, but responses are not stored: leave it out or send false.", "store")
    if body.get("background"):
        raise invalid(
            "`background` is true, but responses are not stored: wait for the answer, or stream it.", "background"
        )
    for name, reason in _STATE.items():
        if body.get(name) is not None:
            raise invalid(f"`{name}` is not taken: {reason}.", name)
    for number, tool in enumerate(body.get("tools") or ()):
        if isinstance(tool, dict) and tool.get("type") not in _TOOLS:
            raise invalid("Only tools of type function are taken: the service runs none itself.", f"tools[{number}]")


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    gateway = _gateway(app)
    try:
        yield
    finally:
        await gateway.close()
        delattr(app.state, _NAME)


router = APIRouter(
    tags=["openai"],
    default_response_class=Response,
    lifespan=_lifespan,
    dependencies=[Depends(Needs(Scope.INFERENCE))],
)


def _gateway(app: Any) -> Gateway:
    state: State = app.state.hemostat
    if not hasattr(app.state, _NAME):
        setattr(app.state, _NAME, Gateway.of(state))
    made: Gateway = getattr(app.state, _NAME)
    return made


def gateway_of(request: Request) -> Gateway:
    """The gateway of the application that got this request."""
    return _gateway(request.app)


@router.get(
    "/v1/models", summary="The deployments", responses=page.answers({"object": "list", "data": [page.MODEL]}, page.LIST)
)
async def list_models(request: Request) -> Response:
    """Every deployment; `hemostat.state` shows whether a replica is ready."""
    listed = await gateway_of(request).directory.all()
    return JSONResponse({"object": "list", "data": [_model(deployment) for deployment in listed]})


@router.get("/v1/models/{model}", summary="One deployment", responses=page.answers(page.MODEL, page.ONE))
async def get_model(request: Request, model: str) -> Response:
    """As in the list."""
    return JSONResponse(_model(await gateway_of(request).directory.find(model)))


@router.post(
    "/v1/chat/completions",
    summary="Answer a conversation",
    responses=page.answers(page.CHAT["answer"], page.GENERATION, event=page.CHAT["event"]),
    openapi_extra=page.takes(page.CHAT["request"], generates=True),
)
async def chat(request: Request) -> Response:
    """OpenAI's chat completions, with vLLM's additional fields, calibrated."""
    return await _generate(request, "chat")


@router.post(
    "/v1/completions",
    summary="Continue a text",
    responses=page.answers(page.COMPLETION["answer"], page.GENERATION, event=page.COMPLETION["event"]),
    openapi_extra=page.takes(page.COMPLETION["request"], generates=True),
)
async def complete(request: Request) -> Response:
    """OpenAI's completions, with vLLM's additional fields, calibrated."""
    return await _generate(request, "completions")


@router.post(
    "/v1/responses",
    summary="Answer a request of the Responses API",
    responses=page.answers(page.RESPONSE["answer"], page.GENERATION, event=page.RESPONSE["event"]),
    openapi_extra=page.takes(page.RESPONSE["request"], generates=True),
)
async def respond(request: Request) -> Response:
    """OpenAI's responses without state: nothing is stored, so no request can refer to an earlier response."""
    return await _generate(request, "responses")


_STORED: dict[str, Any] = {
    "summary": "Nothing is stored",
    "status_code": 404,
    "responses": page.failures(page.REFUSED),
}


@router.get("/v1/responses/{response_id}", **_STORED)
@router.delete("/v1/responses/{response_id}", **_STORED)
@router.get("/v1/responses/{response_id}/input_items", **_STORED)
@router.post("/v1/responses/{response_id}/cancel", **_STORED)
async def stored(response_id: str) -> Response:
    """404: responses are not kept."""
    raise ApiError(ErrorCode.NOT_FOUND, "Responses are not stored, so none has this id.")


@router.post(
    "/tokenize",
    summary="Token ids of a text or conversation",
    responses=page.answers({"count": 2, "max_model_len": 4096, "tokens": [73, 74]}, page.TOKENS),
    openapi_extra=page.takes({"model": "smollm2-w4", "prompt": "hi"}, generates=False),
)
async def tokenize(request: Request) -> Response:
    """As vLLM has it."""
    return await _ask(request, "/tokenize")


@router.post(
    "/detokenize",
    summary="Text of token ids",
    responses=page.answers({"prompt": "hi"}, page.TOKENS),
    openapi_extra=page.takes({"model": "smollm2-w4", "tokens": [73, 74]}, generates=False),
)
async def detokenize(request: Request) -> Response:
    """As vLLM has it."""
    return await _ask(request, "/detokenize")


# --- how


def _model(deployment: Deployment) -> dict[str, Any]:
    serving = serving_replicas(deployment)
    version = own_version(deployment, serving[0]) if serving else deployment.active_version
    return {
        "id": deployment.name,
        "object": "model",
        "created": int(deployment.created_at),
        "owned_by": "hemostat",
        "hemostat": {"state": deployment.state.value, "calibration": version},
    }


class _Judged(NamedTuple):
    """A body, and what is wrong with it beside the model that it names."""

    body: dict[str, Any]
    asked: options.Options
    fault: ApiError | None = None


def _judge(raw: bytes) -> _Judged:
    body = parse(raw)
    asked = options.take(body)
    try:
        bounds.check(body)
        _check_extra(body)
    except ApiError as error:
        return _Judged(body, asked, error)
    return _Judged(body, asked)


async def _judged(gateway: Gateway, request: Request) -> _Judged:
    return await gateway.bodies.parsed(request, _judge, limit=gateway.settings.gateway_max_body_bytes)


async def _generate(request: Request, route: Route) -> Response:
    gateway = gateway_of(request)
    deployment: Deployment | None = None
    try:
        body, asked, fault = await _judged(gateway, request)
        deployment = await gateway.directory.find(model_name(body))
        if fault is not None:
            raise fault
        if route == "responses":
            _check_kept(body)
        else:
            sampling.check(body, deployment)
        require(body, PROMPTS[route])
        if asked.verify:
            verified.check(route, body)
    except TooLargeError:
        gateway.account(None, PATHS[route], 413)
        return _too_large(gateway)
    except ClientDisconnect:
        gateway.account(None, PATHS[route], 499)
        return Response(status_code=499)
    except HemostatError as error:
        gateway.account(deployment, PATHS[route], error.status)
        raise
    kind = verified.VerifiedExchange if asked.verify else Exchange
    return kind(gateway, route, deployment, body, asked, key=key_of(request))


def _check_extra(body: dict[str, Any]) -> None:
    stream = body.get("stream_options")
    if stream is not None and not isinstance(stream, dict):
        raise invalid("`stream_options` is not an object.", "stream_options")
    extra = body.get("vllm_xargs")
    if extra is None:
        return
    if not isinstance(extra, dict):
        raise invalid("`vllm_xargs` is not an object.", "vllm_xargs")
    if len(extra) > _MAX_EXTRA:
        raise invalid(f"`vllm_xargs` has {len(extra)} entries; at most {_MAX_EXTRA} are taken.", "vllm_xargs")
    for name in extra:
        if name.lower().startswith("hemostat"):
            raise invalid("Names of `vllm_xargs` that begin with hemostat are the service's own.", "vllm_xargs")


def _too_large(gateway: Gateway) -> Response:
    limit = gateway.settings.gateway_max_body_bytes
    error = ApiError(ErrorCode.BODY_TOO_LARGE, f"The body is larger than {limit} bytes.")
    return response(error, {"connection": "close"})


async def _ask(request: Request, path: str) -> Response:
    """A question that any replica answers at once."""
    gateway = gateway_of(request)
    deployment: Deployment | None = None
    status = 500
    try:
        body, _, fault = await _judged(gateway, request)
        deployment = await gateway.directory.find(model_name(body))
        if fault is not None:
            raise fault
        require(body, *_ASKED[path])
        owner = key_of(request).owner
        async with gateway.questions.of(owner).place() if owner else contextlib.nullcontext():
            answer = await _asked(gateway, deployment, path, body)
        status = 200
    except TooLargeError:
        status = 413
        return _too_large(gateway)
    except ClientDisconnect:
        status = 499
        return Response(status_code=499)
    except HemostatError as error:
        status = error.status
        raise
    else:
        return Response(answer, media_type="application/json")
    finally:
        gateway.account(deployment, path, status)


async def _asked(gateway: Gateway, deployment: Deployment, path: str, body: dict[str, Any]) -> bytes:
    tried: set[str] = set()
    for _ in range(3):
        choice = gateway.replicas.choose(deployment, None, frozenset(tried))
        if choice is None:
            tried.clear()
            await asyncio.sleep(0.05)
            continue
        try:
            with gateway.replicas.busy(choice.replica):
                served = await gateway.upstream.served_name(choice.replica)
                status, answer = await gateway.upstream.call(choice.replica, path, body | {"model": served})
                if status >= 500:
                    await gateway.upstream.check_alive(choice.replica)
        except ReplicaLostError as error:
            gateway.replicas.failed(choice.replica)
            if isinstance(error, ReplicaSilentError):
                break
            tried.add(choice.replica.id)
            continue
        if status != 200:
            raise from_replica(status, answer)
        return answer
    raise ApiError(ErrorCode.REPLICA_UNAVAILABLE, "No replica could be reached.", retry_after_s=2)
