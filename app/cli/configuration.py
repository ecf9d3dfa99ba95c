"""Settings for a command, with faults printed like all others."""

from __future__ import annotations

from pydantic import ValidationError

from app.contracts.errors import ErrorCode, HemostatError
from app.settings import Settings


def settings() -> Settings:
    """The settings of the environment. Raises `HemostatError(INVALID_REQUEST)` that names the variable."""
    try:
        return Settings()
    except ValidationError as error:
        fault = error.errors()[0]
        name = f"HEMOSTAT_{'_'.join(str(part) for part in fault['loc']).upper()}"
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"{name}={fault['input']!r} cannot be used: {fault['msg']}",
            hint=f"correct or unset {name}",
        ) from None
