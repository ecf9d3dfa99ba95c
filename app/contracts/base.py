"""What every contract shares."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, JsonValue
from pydantic_core import PydanticCustomError


class Contract(BaseModel):
    """Immutable, closed (a misspelt field is an error, never ignored) and finite (no NaN or infinity)."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def broken(
    message: str, *, hint: str = "", at: tuple[str | int, ...] = (), code: str = "invalid_request"
) -> PydanticCustomError:
    """The error of a validator whose rule is broken: what, what to do, where below, which ErrorCode."""
    return PydanticCustomError("rule", "{message}", {"message": message, "hint": hint, "at": at, "code": code})


def _listed(value: Any) -> Any:
    """Tuples, as the parser of bodies makes them for strict reading, are lists of JSON again."""
    if isinstance(value, list | tuple):
        return [_listed(one) for one in value]
    return {name: _listed(one) for name, one in value.items()} if isinstance(value, dict) else value


Json = Annotated[JsonValue, BeforeValidator(_listed)]
