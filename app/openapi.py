"""The OpenAPI page: each status of each operation is declared, with an example.

Routes parse and answer by hand (exact pointers, one error shape), so their schemas are named here instead of being
derived from signatures.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import Response

from app import problems
from app.contracts.deployment import (
    Deployment,
    DeploymentEvent,
    DeploymentEventPage,
    DeploymentList,
    DeploymentPatch,
    DeploymentRequest,
    PromoteRequest,
    RollbackRequest,
)
from app.contracts.diff_report import DiffReport
from app.contracts.errors import CATALOGUE, ErrorCode
from app.contracts.event import Event
from app.contracts.job import Estimate, Job, JobPage, Queue
from app.contracts.profile import Profile, ProfilePage
from app.contracts.request import FEWEST_VALUES, MOST_VALUES, SweptRequest
from app.error_guide import GUIDE
from app.kinds.registry import KINDS, submissions

JSON: Final = "application/json"
TEMPLATE: Final = "#/components/schemas/{model}"

DESCRIPTION: Final = """\
Find, stop and watch model hemorrhage: what a language model loses when it is changed for deployment.

`POST /v1/diagnosis/jobs` compares a modified model with the unmodified one, `…/events` follows the job, `…/report` is
the verdict. Errors are RFC 9457 problem details with a stable `code`, the offending field as JSON pointer, and what to
do; `/errors/CODE` explains each.
"""


@dataclass(frozen=True)
class Answer:
    """A status that an operation answers with when all went well, and what it looks like."""

    status: int
    example: Any
    schema: str | None = None
    media_type: str = JSON
    description: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, Any] = field(default_factory=dict)  # further media types and their examples


def reference(model: str) -> dict[str, str]:
    """A schema of the page's components."""
    return {"$ref": TEMPLATE.format(model=model)}


def problem_example(code: ErrorCode, **members: object) -> dict[str, object]:
    """A problem document of this code."""
    kind = CATALOGUE[code]
    return {
        "type": f"/errors/{code.value}",
        "title": kind.title,
        "status": kind.status,
        "detail": f"{kind.title}.",
        "instance": "/v1/diagnosis/jobs",
        "code": code.value,
        "pointer": "",
        "request_id": "0f6d1f2f6b0b4f0e9f1f0b5f3c1d2e3a",
        "hint": GUIDE[code],
    } | members


def answers(
    *good: Answer,
    errors: Sequence[ErrorCode],
    guarded: bool = True,
    limited: bool = True,
    members: Mapping[str, object] | None = None,
    pages: Sequence[int] = (),
) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an operation: what it answers, the errors of its own, and those that any request may meet.

    `members` are extension members of its 503; for `pages`, statuses of its errors, a browser gets a page.
    """
    made: dict[int | str, dict[str, Any]] = {}
    for answer in good:
        entry: dict[str, Any] = {"description": answer.description or HTTPStatus(answer.status).phrase}
        if answer.example is not None:
            schema = reference(answer.schema) if answer.schema else {}
            entry["content"] = {answer.media_type: {"schema": schema, "example": answer.example}}
            for media_type, example in answer.others.items():
                entry["content"][media_type] = {"schema": {"type": "string"}, "example": example}
        if answer.headers:
            entry["headers"] = {
                name: {"description": text, "schema": {"type": "string"}} for name, text in answer.headers.items()
            }
        made[answer.status] = entry
    codes = [*errors, ErrorCode.INTERNAL, ErrorCode.HOST_NOT_ALLOWED]
    codes += [ErrorCode.UNAUTHORIZED, ErrorCode.NOT_PERMITTED] if guarded else []
    codes += [ErrorCode.RATE_LIMITED] if guarded and limited else []
    for code in dict.fromkeys(codes):
        status = CATALOGUE[code].status
        entry = made.setdefault(
            status,
            {
                "description": HTTPStatus(status).phrase,
                "content": {problems.MEDIA_TYPE: {"schema": reference("Problem"), "examples": {}}},
            },
        )
        extra = dict(members or {}) if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
        entry["content"][problems.MEDIA_TYPE]["examples"][code.value] = {"value": problem_example(code, **extra)}
        if code in RETRY_AFTER:
            entry["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
    for status in pages:
        made[status]["content"]["text/html"] = {"schema": {"type": "string"}, "example": "<!doctype html>…"}
    return made


RETRY_AFTER: Final = frozenset({ErrorCode.RATE_LIMITED, ErrorCode.QUEUE_FULL, ErrorCode.UNAVAILABLE})


def _components() -> dict[str, Any]:
    inputs: list[type[BaseModel]] = [
        problems.Problem,
        DeploymentRequest,
        DeploymentPatch,
        PromoteRequest,
        RollbackRequest,
    ]
    outputs: list[type[BaseModel]] = [
        Job,
        JobPage,
        Queue,
        Estimate,
        *(kind.report for kind in KINDS.values()),
        DiffReport,
        Profile,
        ProfilePage,
        Deployment,
        DeploymentList,
        DeploymentEvent,
        DeploymentEventPage,
    ]
    wanted = [(model, "validation") for model in inputs] + [(model, "serialization") for model in outputs]
    _, definitions = models_json_schema(wanted, ref_template=TEMPLATE)  # type: ignore[arg-type]
    schemas: dict[str, Any] = definitions["$defs"]
    submission = submissions().json_schema(mode="validation", ref_template=TEMPLATE)
    event = TypeAdapter(Event).json_schema(mode="serialization", ref_template=TEMPLATE)
    for union, schema in (("SubmitRequest", submission), ("Event", event)):
        for name, part in schema.pop("$defs").items():
            schemas.setdefault(name, part)
        schemas[union] = schema
    _with_knobs(schemas)
    return schemas


def _with_knobs(schemas: dict[str, Any]) -> None:
    """Kinds that turn knobs take `{"sweep": …}` where a step's value would stand; `app.models.knobs` takes it out
    before the request is validated, so that the contracts do not know it."""
    number = {"type": "number"}
    span = {"from": number, "to": number, "points": {"type": "integer", "minimum": 2}}
    schemas["Sweep"] = {
        "title": "Sweep",
        "description": "The values of a knob, in place of one value.",
        "type": "object",
        "required": ["sweep"],
        "additionalProperties": False,
        "properties": {
            "sweep": {
                "anyOf": [
                    {"type": "array", "minItems": FEWEST_VALUES, "maxItems": MOST_VALUES},
                    {"type": "object", "required": list(span), "properties": span, "additionalProperties": False},
                ]
            }
        },
    }
    step = {
        "type": "object",
        "description": "A step of a recipe; one of its values may be a Sweep.",
        "required": ["type"],
        "properties": {"type": {"type": "string"}},
        "additionalProperties": {"anyOf": [reference("Sweep"), {"not": {"type": "object", "required": ["sweep"]}}]},
    }
    candidate = schemas["CandidateModel"]["properties"]
    schemas["SweptModel"] = {
        "title": "SweptModel",
        "description": "The modified model, and what is done to it at every value of the knobs.",
        "type": "object",
        "required": ["model", "recipe"],
        "additionalProperties": False,
        "properties": {"model": candidate["model"], "recipe": {"type": "array", "minItems": 1, "items": step}},
    }
    for name in (kind.submission.__name__ for kind in KINDS.values() if issubclass(kind.request, SweptRequest)):
        schemas[name]["properties"]["candidate"] = reference("SweptModel")
        schemas[name]["required"].remove("knobs")


def _version() -> str:
    """The installed version; a source tree that was not installed has none."""
    try:
        return version("hemostat")
    except PackageNotFoundError:
        return "0+unknown"


def install(app: FastAPI) -> None:
    """Makes `app.openapi` the page of this module, built once, and adds its route."""

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            page = get_openapi(
                title="Hemostat",
                version=_version(),
                openapi_version="3.1.0",
                summary="Diagnosis of modified language models",
                description=DESCRIPTION,
                routes=app.routes,
            )
            components = page.setdefault("components", {})
            components["schemas"] = _components()
            components["securitySchemes"] = {
                "key": {"type": "http", "scheme": "bearer", "description": "Needed where the operator has set keys."}
            }
            page["security"] = [{"key": []}, {}]
            for path in page["paths"].values():
                for operation in path.values():
                    _drop_unused_422(operation["responses"])
            app.openapi_schema = page
        return app.openapi_schema

    @cache
    def page() -> bytes:
        return json.dumps(app.openapi(), ensure_ascii=False).encode()

    async def show(_: Request) -> Response:
        return Response(await asyncio.to_thread(page), media_type=JSON)  # the first one takes half a second

    app.openapi = build  # type: ignore[method-assign]
    app.add_route("/openapi.json", show, include_in_schema=False)


def _drop_unused_422(responses: dict[str, Any]) -> None:
    """FastAPI declares its own 422 for any operation with a parameter; ours are declared where they can happen."""
    content = responses.get("422", {}).get("content", {})
    if content.get(JSON, {}).get("schema", {}).get("$ref", "").endswith("HTTPValidationError"):
        del responses["422"]
