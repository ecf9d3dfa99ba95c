"""Which variables of the environment a process gets that needs no queue, no key and no account."""

import os
import re
from collections.abc import Mapping
from typing import Final

# Names such as HEMOSTAT_SHADOW_REFIT_TOKENS stay.
_SECRET: Final = re.compile(
    r"HEMOSTAT_REDIS_URL|(.*_)?(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|API_KEYS?|(SECRET_)?ACCESS_KEY(_ID)?)",
    re.IGNORECASE,
)


def is_secret(name: str) -> bool:
    """Whether a variable of this name holds a secret, or the path of a file that does."""
    return _SECRET.fullmatch(re.sub("_(FILE|PATH)$", "", name, flags=re.IGNORECASE)) is not None


def without_secrets(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables of `environment` that hold no secret."""
    return {name: value for name, value in environment.items() if not is_secret(name)}
