"""From the bytes of a body to the object that is passed on."""

import json
import math
from typing import Any, Final, NoReturn

from app.contracts.bounded import counted
from app.contracts.errors import ErrorCode
from app.gateway.errors import ApiError, invalid

MAX_MARKS: Final = 100_000  # brackets, colons and quotes


def parse(raw: bytes) -> dict[str, Any]:
    """The object. Raises ApiError (400) if it is no JSON object, has too many values, or is nested deeper than 64
    levels. So it does for a number that no finite float can hold."""
    try:
        counted(raw, MAX_MARKS)
        body = json.loads(raw.decode("utf-8"), parse_constant=_refuse, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise _no_json(f"byte {error.start} is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise _no_json(f"{error.msg}, line {error.lineno} column {error.colno}") from None
    except ValueError as error:
        raise _no_json(str(error)[:100]) from None
    if not isinstance(body, dict):
        raise invalid("The body is not a JSON object.")
    return body


def model_name(body: dict[str, Any]) -> str:
    """The deployment that is asked for. Raises ApiError (400) where there is none."""
    name = body.get("model")
    if not isinstance(name, str) or not name:
        fault = "is missing" if name is None or name == "" else "is not a text"
        raise invalid(f"`model` {fault}: name a deployment, as GET /v1/models lists them.", "model")
    return name


PROMPTS: Final = {"chat": "messages", "completions": "prompt", "responses": "input"}  # the field of each route


def require(body: dict[str, Any], *fields: str) -> None:
    """Raises ApiError (400), naming the first, unless one of `fields` is given."""
    if all(body.get(field) is None for field in fields):
        names = " or ".join(f"`{field}`" for field in fields)
        raise invalid(f"{names} is required.", fields[0])


def dump(body: dict[str, Any]) -> bytes:
    """As it is sent to a replica. A lone surrogate stays escaped, so that the replica can refuse it by name."""
    return json.dumps(body, separators=(",", ":")).encode("ascii")


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    """1e400 is a number to JSON and infinity to a float, which no JSON can say to a replica."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:24]} is beyond every float")
    return value


def _no_json(why: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_JSON, f"The body is not JSON: {why}.")
