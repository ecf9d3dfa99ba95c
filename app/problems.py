"""Errors as problem documents (RFC 9457), the same shape for every status and every layer."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field
from redis.exceptions import BusyLoadingError, OutOfMemoryError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from starlette.responses import Response
from starlette.types import Scope

from app.contracts.errors import CATALOGUE, ErrorCode, HemostatError
from app.error_guide import GUIDE
from app.gateway import errors as openai_errors

MEDIA_TYPE: Final = "application/problem+json"
REDIS_RETRY_AFTER_S: Final = 2
SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
MAX_ERRORS: Final = 50
MAX_PATH: Final = 200  # characters of a path that an answer repeats
MAX_TOLD: Final = 3  # faults after the first that the detail itself names
_SILENT: Final = "does not answer at the moment"
_FAULTS: Final[dict[type[Exception], str]] = {
    OutOfMemoryError: "has used all the memory that it may use, and takes no more",
    ReadOnlyError: "is a read-only replica",
    BusyLoadingError: "is still loading its data",
}
REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True)
class FieldError:
    """One offending part of a request: a field of the body (`pointer`), or a query parameter or header."""

    code: ErrorCode
    detail: str
    hint: str = ""
    pointer: str = ""
    parameter: str | None = None

    @property
    def place(self) -> str:
        """Where it is, in a sentence."""
        return f"at {self.pointer or '/'}" if self.parameter is None else f"in {self.parameter}"


class RequestError(HemostatError):
    """A request with one or more offending parts. Its code, pointer and hint are those of the first.

    The detail is the first part's, and names the next ones with their places, for readers who see nothing else.
    `total`: how many there are, where `errors` does not hold all of them.
    """

    def __init__(self, errors: Sequence[FieldError], *, total: int | None = None) -> None:
        first = errors[0]
        named = errors[1 : 1 + MAX_TOLD]
        rest = (total or len(errors)) - 1 - len(named)
        more = "".join(f" Also {part.place}: {part.detail}" for part in named) + (f" And {rest} more." if rest else "")
        super().__init__(first.code, first.detail + more, hint=first.hint, pointer=first.pointer)
        self.errors = tuple(errors[:MAX_ERRORS])

    def __reduce__(self) -> tuple[Any, ...]:
        """As `HemostatError`: whole."""
        return (type(self), (self.errors,), self.__dict__)


class ProblemError(BaseModel):
    """One offending part of the request."""

    code: str
    detail: str
    hint: str
    pointer: str | None = None
    parameter: str | None = None


class Problem(BaseModel):
    """An error, as RFC 9457 problem details."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="`/errors/CODE`")
    title: str
    status: int
    detail: str
    instance: str
    code: str
    pointer: str = Field(description='JSON pointer of the offending field of the body; "" where none is to blame')
    request_id: str
    hint: str = Field(description="what to do")
    errors: list[ProblemError] | None = None


def request_id(scope: Scope) -> str:
    """The request's id: set by the outermost middleware."""
    return str(scope.get("hemostat.request_id", ""))


def document(scope: Scope, error: HemostatError, **members: object) -> dict[str, object]:
    """The problem document of an error in this request; `members` are extension members."""
    kind = CATALOGUE[error.code]
    problem: dict[str, object] = {
        "type": f"/errors/{error.code.value}",
        "title": kind.title,
        "status": kind.status,
        "detail": error.detail,
        "instance": scope.get("path", "")[:MAX_PATH],
        "code": error.code.value,
        "pointer": error.pointer,
        "request_id": request_id(scope),
        "hint": error.hint or GUIDE[error.code],
    }
    if isinstance(error, RequestError):
        problem["errors"] = [_part(part) for part in error.errors]
    elif error.pointer:
        problem["errors"] = [_part(FieldError(error.code, error.detail, error.hint, error.pointer))]
    return problem | members


def _part(part: FieldError) -> dict[str, object]:
    named = {name: value for name, value in asdict(part).items() if value is not None}
    if part.parameter is not None:
        del named["pointer"]
    return named | {"hint": part.hint or GUIDE[part.code]}


def response(
    scope: Scope, error: HemostatError, *, headers: dict[str, str] | None = None, **members: object
) -> Response:
    """The answer to a request that met `error`; on OpenAI's routes in OpenAI's envelope."""
    ours = openai_errors.in_scope(scope, error, headers)
    if ours is not None:
        return ours
    extra = dict(headers or {})
    if error.retry_after_s is not None:
        extra["retry-after"] = str(error.retry_after_s)
    if error.code is ErrorCode.UNAUTHORIZED:
        extra["www-authenticate"] = "Bearer"
    body = json.dumps(document(scope, error, **members), ensure_ascii=False, default=str)
    # What a client sent may stand in the text: a lone surrogate must not break the answer.
    answer = Response(body.encode("utf-8", "replace"), status_code=error.status, headers=extra, media_type=MEDIA_TYPE)
    if error.code is ErrorCode.UNAUTHORIZED and scope.get("method") in SAFE_METHODS:
        # A browser then asks for the key. It takes a header of its own for that, not the second challenge of another.
        answer.headers.append("www-authenticate", 'Basic realm="hemostat", charset="UTF-8"')
    return answer


def unavailable(part: str = "Redis", what: str = _SILENT) -> HemostatError:
    """503: a part that comes back by itself is away."""
    return HemostatError(
        ErrorCode.UNAVAILABLE,
        f"{part} {what}.",
        hint=(
            "Nothing was lost. Wait as long as Retry-After says and send the request again; with an Idempotency-Key, "
            "a job is submitted only once."
        ),
        retry_after_s=REDIS_RETRY_AFTER_S,
    )


def redis_fault(error: Exception) -> str:
    """What is wrong with Redis, where it cannot be used."""
    if str(error).startswith("MISCONF"):
        return "cannot write to its disk"
    return next((said for kind, said in _FAULTS.items() if isinstance(error, kind)), _SILENT)


def redis_is_away(error: RedisError) -> bool:
    """Whether waiting may help: Redis cannot be reached, is loading, is full or is read-only (else it is our bug)."""
    if isinstance(error, RedisConnectionError | RedisTimeoutError | OutOfMemoryError | ReadOnlyError):
        return True
    return isinstance(error, ResponseError) and str(error).startswith(("MISCONF", "OOM", "LOADING", "MASTERDOWN"))
