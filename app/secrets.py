"""Which variables of the environment a process gets that needs no queue, no key and no account, and who may read
those of the others."""

import ctypes
import os
import re
import sys
from collections.abc import Mapping
from typing import Final

# Names such as HEMOSTAT_SHADOW_REFIT_TOKENS stay.
_SECRET: Final = re.compile(
    r"HEMOSTAT_REDIS_URL|(.*_)?(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|API_KEYS?|(SECRET_)?ACCESS_KEY(_ID)?)",
    re.IGNORECASE,
)

_PR_SET_DUMPABLE: Final = 4


def is_secret(name: str) -> bool:
    """Whether a variable of this name holds a secret, or the path of a file that does."""
    return _SECRET.fullmatch(re.sub("_(FILE|PATH)$", "", name, flags=re.IGNORECASE)) is not None


def without_secrets(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables of `environment` that hold no secret."""
    return {name: value for name, value in environment.items() if not is_secret(name)}


def hide_memory() -> None:
    """Other processes of this user, as its own children, cannot read its environment and memory; the superuser can.

    Call it where nothing more is written below /proc/self: that belongs to the superuser then.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
