"""The gateway's part of the OpenAPI page. Bodies are OpenAI's and vLLM's own, named as far as the gateway looks."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

from app.contracts.errors import ErrorCode, HemostatError
from app.gateway import errors
from app.gateway.errors import ApiError

JSON: Final = "application/json"
HEADERS: Final = {"x-hemostat-calibration": "calibration version that produced the answer"}

ERROR_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string", "description": "explained at /errors/CODE"},
            },
        }
    },
}
_HEMOSTAT: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "calibration": {"type": "string", "pattern": "^(auto|off|identity|cal-[0-9a-f]{16})$", "default": "auto"},
        "shadow": {"type": "boolean", "default": True, "description": "false: never scored again"},
        "verify": {"type": "boolean", "default": False, "description": "decode by draft and verification"},
    },
}
_ANY: Final = (
    *(ErrorCode.INTERNAL, ErrorCode.HOST_NOT_ALLOWED),
    *(ErrorCode.UNAUTHORIZED, ErrorCode.NOT_PERMITTED, ErrorCode.RATE_LIMITED),
)
_NAMED: Final = (ErrorCode.DEPLOYMENT_NOT_FOUND, ErrorCode.UNAVAILABLE)
_READ: Final = (ErrorCode.INVALID_REQUEST, ErrorCode.INVALID_JSON, ErrorCode.BODY_TOO_LARGE, ErrorCode.BODY_TOO_SLOW)
_ANSWERED: Final = (ErrorCode.CONTEXT_EXCEEDED, ErrorCode.REPLICA_UNAVAILABLE, ErrorCode.ENGINE_FAILED)
LIST: Final = (*_ANY, ErrorCode.UNAVAILABLE)
ONE: Final = (*_ANY, *_NAMED)
TOKENS: Final = (*_ANY, *_NAMED, *_READ, *_ANSWERED)
GENERATION: Final = (*TOKENS, ErrorCode.PROFILE_NOT_FOUND, ErrorCode.NONFINITE_LOGITS, ErrorCode.VERIFY_UNAVAILABLE)
REFUSED: Final = (*_ANY, ErrorCode.NOT_FOUND)

USAGE: Final = {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 13}
_HEAD: Final = {
    "created": 1795612264,
    "model": "smollm2-w4",
    "system_fingerprint": "hemostat-smollm2-135m-5d41402abc4b-cal-0123456789abcdef",
}
MODEL: Final = {
    "id": "smollm2-w4",
    "object": "model",
    "created": 1795612264,
    "owned_by": "hemostat",
    "hemostat": {"state": "ready", "calibration": "cal-0123456789abcdef"},
}
CHAT: Final[dict[str, Any]] = {
    "request": {"model": "smollm2-w4", "messages": [{"role": "user", "content": "What is the capital of France?"}]},
    "answer": {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        **_HEAD,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Paris"},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    },
    "event": {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        **_HEAD,
        "choices": [{"index": 0, "delta": {"content": "Paris"}, "logprobs": None, "finish_reason": None}],
    },
}
COMPLETION: Final[dict[str, Any]] = {
    "request": {"model": "smollm2-w4", "prompt": "The capital of France is", "max_tokens": 1},
    "answer": {
        "id": "cmpl-1",
        "object": "text_completion",
        **_HEAD,
        "choices": [{"index": 0, "text": " Paris", "logprobs": None, "finish_reason": "length"}],
        "usage": USAGE,
    },
    "event": {
        "id": "cmpl-1",
        "object": "text_completion",
        **_HEAD,
        "choices": [{"index": 0, "text": " Paris", "logprobs": None, "finish_reason": None}],
    },
}
RESPONSE: Final[dict[str, Any]] = {
    "request": {"model": "smollm2-w4", "input": "What is the capital of France?", "store": False},
    "answer": {
        "id": "resp_1",
        "object": "response",
        "created_at": 1795612264,
        "model": "smollm2-w4",
        "system_fingerprint": _HEAD["system_fingerprint"],
        "status": "completed",
        "output": [
            {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": "Paris", "annotations": []}],
            }
        ],
    },
    "event": {"type": "response.output_text.delta", "delta": "Paris", "item_id": "msg_1", "sequence_number": 4},
}


def failures(codes: Sequence[ErrorCode]) -> dict[int | str, dict[str, Any]]:
    """The `responses` for what can go wrong, in OpenAI's envelope."""
    made: dict[int | str, dict[str, Any]] = {}
    for code in dict.fromkeys(codes):
        error: HemostatError = ApiError(
            code, "What went wrong.", hint="What to do.", status=STATUS.get(code), param="model"
        )
        entry = made.setdefault(
            error.status,
            {
                "description": HTTPStatus(error.status).phrase,
                "content": {JSON: {"schema": ERROR_SCHEMA, "examples": {}}},
            },
        )
        entry["content"][JSON]["examples"][code.value] = {"value": errors.envelope(error)}
        if error.status in {429, 503}:
            entry["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
    return made


# Where a code has another status on these routes than elsewhere.
STATUS: Final = {ErrorCode.INVALID_REQUEST: 400, ErrorCode.PROFILE_NOT_FOUND: 400}


def answers(example: Any, codes: Sequence[ErrorCode], *, event: Any = None) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an operation. `event`: an event's data, where it can stream."""
    good: dict[str, Any] = {"description": "OK", "content": {JSON: {"schema": {}, "example": example}}}
    if event is not None:
        good["content"]["text/event-stream"] = {"schema": {}, "example": event}
        good["headers"] = {name: {"description": text, "schema": {"type": "string"}} for name, text in HEADERS.items()}
    return {200: good, **failures(codes)}


def takes(example: Mapping[str, Any], *, generates: bool) -> dict[str, Any]:
    """The `requestBody` of an operation."""
    properties: dict[str, Any] = {"model": {"type": "string", "description": "name of a deployment"}}
    if generates:
        properties["hemostat"] = _HEMOSTAT
    schema = {"type": "object", "required": ["model"], "properties": properties, "additionalProperties": True}
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema, "example": dict(example)}}}}
