"""Errors of the OpenAI routes: one envelope, {"error": {message, type, param, code}}, whichever layer they come from.

`code` is a code of the service's catalogue (`/errors/CODE` explains it), always a string. `type` is OpenAI's class of
errors for the status, so that its clients raise the expected exception. `x-should-retry` shows these clients whether
another attempt can help.
"""

import json
import re
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Scope

from app.contracts.errors import CATALOGUE, ErrorCode, HemostatError

# First segments below /v1 that clients of OpenAI ask for; what is not offered of these is a 404 of the same shape.
_FAMILIES: Final = frozenset(
    {
        *("models", "chat", "completions", "responses", "embeddings", "audio", "images", "moderations", "files"),
        *("batches", "uploads", "fine_tuning", "assistants", "threads", "vector_stores", "conversations", "realtime"),
    }
)
_TYPES: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_RETRIED: Final = frozenset({429, 502, 503})
_LENGTHS: Final = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens", "truncate_prompt_tokens"})
_LIMIT: Final = re.compile(r"(?:maximum context length is |maximum model length of |max_model_len ?= ?)(\d+)")
_MESSAGE_BYTES: Final = 2000
_TRACES: Final = (
    re.compile(r" at 0x[0-9a-fA-F]+"),
    re.compile(r'\n?\s*File "[^"]+", line \d+(, in \S+(\n\s+.*)?)?'),
    re.compile(r"Traceback \(most recent call last\):?"),
    re.compile(r"(?<![\w:/.])(?:/[\w.\-]+){2,}"),
)


class ApiError(HemostatError):
    """A HemostatError whose status and retry advice differ from its code's. `param` names the field, as OpenAI does."""

    def __init__(
        self,
        code: ErrorCode,
        detail: str,
        *,
        status: int | None = None,
        hint: str = "",
        param: str | None = None,
        retry: bool | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        pointer = "" if param is None else "/" + param.replace(".", "/").replace("[", "/").replace("]", "")
        super().__init__(code, detail, hint=hint, pointer=pointer, retry_after_s=retry_after_s)
        self.param = param
        self.retry = retry
        self._status = status

    @property
    def status(self) -> int:
        """HTTP status: the one given, else the code's."""
        return self._status or CATALOGUE[self.code].status


def invalid(detail: str, param: str | None = None, *, hint: str = "") -> ApiError:
    """400: the request itself is at fault."""
    return ApiError(ErrorCode.INVALID_REQUEST, detail, status=400, param=param, hint=hint)


def too_large(what: str) -> ApiError:
    """400: the answer that was asked for is beyond all measure, at any replica and at any time."""
    hint = "Ask for fewer tokens, sequences, prompts or log-probabilities."
    return ApiError(ErrorCode.INVALID_REQUEST, f"The answer is too large: {what}.", status=400, hint=hint, retry=False)


def is_ours(path: str) -> bool:
    """Whether a request for this path expects OpenAI's envelope."""
    if path in {"/tokenize", "/detokenize"}:
        return True
    first, _, rest = path.removeprefix("/").partition("/")
    return first == "v1" and rest.partition("/")[0] in _FAMILIES


def error_type(status: int) -> str:
    """OpenAI's class of errors for a status."""
    return _TYPES.get(status) or ("invalid_request_error" if status < 500 else "server_error")


def envelope(error: HemostatError) -> dict[str, Any]:
    """The body of an answer, and the data of a stream's last event."""
    param = error.param if isinstance(error, ApiError) else error.pointer.removeprefix("/").replace("/", ".") or None
    message = f"{error.detail} {error.hint}".strip()
    return {"error": {"message": message, "type": error_type(error.status), "param": param, "code": error.code.value}}


def should_retry(error: HemostatError) -> bool:
    """Whether the same request may succeed a little later."""
    retry = error.retry if isinstance(error, ApiError) else None
    return error.status in _RETRIED if retry is None else retry


def response(error: HemostatError, headers: dict[str, str] | None = None) -> Response:
    """The answer to a request that met `error`."""
    extra = dict(headers or {})
    if error.retry_after_s is not None:
        extra["retry-after"] = str(error.retry_after_s)
    if error.code is ErrorCode.UNAUTHORIZED:
        extra["www-authenticate"] = "Bearer"
    if error.status == 429 or error.status >= 500 or (isinstance(error, ApiError) and error.retry is not None):
        extra["x-should-retry"] = "true" if should_retry(error) else "false"
    body = json.dumps(envelope(error), ensure_ascii=False).encode("utf-8", "replace")
    return Response(body, status_code=error.status, headers=extra, media_type="application/json")


def in_scope(scope: Scope, error: HemostatError, headers: dict[str, str] | None = None) -> Response | None:
    """The answer in OpenAI's envelope where the request's path is one of its routes, else None."""
    return response(error, headers) if is_ours(scope.get("path", "")) else None


def from_replica(status: int, body: bytes, prompt: str | None = None) -> ApiError:
    """What the replica's server refused, in our envelope: its words for faults of the request, ours for its own.

    `prompt` is the field that holds the prompt, to blame if the context is too short. vLLM's messages may quote the
    request, which is the client's own. Paths and traces are removed.
    """
    try:
        given = json.loads(body)["error"]
        message, param = str(given["message"]), given.get("param")
    except (ValueError, KeyError, TypeError):
        message, param = "", None
    return from_words(status, message, param if isinstance(param, str) else None, prompt)


def from_words(status: int, message: str, param: str | None, prompt: str | None = None) -> ApiError:
    """As `from_replica`, for an error that came as an event of a stream."""
    if status >= 500 or status in {401, 403, 408, 429} or status < 400:
        if status in {429, 503}:
            detail = "The replica takes no more requests at the moment."
            return ApiError(ErrorCode.REPLICA_UNAVAILABLE, detail, retry_after_s=2)
        if status == 501:
            return ApiError(ErrorCode.INVALID_REQUEST, clean(message), status=501, param=param, retry=False)
        return ApiError(ErrorCode.ENGINE_FAILED, "The replica failed on this request.", status=500)
    if "maximum context length" in message or "max_model_len" in message or "maximum model length" in message:
        return _too_long(message, param if param in _LENGTHS else prompt or param)
    text = clean(message) or "The replica refused the request."
    return ApiError(ErrorCode.INVALID_REQUEST, text, status=status, param=param)


def _too_long(message: str, param: str | None) -> ApiError:
    """In our words: vLLM stops counting a prompt one token beyond the limit, and says that as its length."""
    limit = _LIMIT.search(message)
    context = f"context of {limit.group(1)} tokens" if limit else "context"
    return ApiError(
        ErrorCode.CONTEXT_EXCEEDED,
        f"The prompt and the requested tokens do not fit the {context} of the deployment, which may be smaller than "
        "the model's own.",
        status=400,
        param=param,
        hint="Shorten the prompt, or lower `max_tokens`.",
    )


def clean(message: str) -> str:
    """The message without paths of the machine, addresses and traces, cut to 2,000 characters."""
    for pattern in _TRACES:
        message = pattern.sub("", message)
    return message.strip()[:_MESSAGE_BYTES]
