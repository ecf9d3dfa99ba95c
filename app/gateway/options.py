"""`hemostat`, the one field of a request that is ours: taken out, and exact in what it takes."""

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Final, Literal

from app.contracts.deployment import IDENTITY
from app.gateway.errors import ApiError, invalid
from app.models.nearest import suggestion

FIELD: Final = "hemostat"
AUTO: Final = "auto"
OFF: Final = "off"
MAX_FIELDS: Final = 256  # of a body; each name is compared with ours, and OpenAI and vLLM have 90 together
_VERSION: Final = re.compile(r"cal-[0-9a-f]{16}")
_NEAR: Final = 0.8  # one letter of the eight too many, missing or wrong, two exchanged, or two letters too many
_NAMES: Final = ("calibration", "shadow", "verify")


@dataclass(frozen=True)
class Options:
    """calibration: "auto" (the deployment's active version), "off" (none), or a version. shadow: may be scored again.
    verify: decode by draft and verification."""

    calibration: str = AUTO
    shadow: bool = True
    verify: bool = False

    @property
    def pinned(self) -> str | None:
        """The version that the request insists on; None leaves it to the deployment."""
        return None if self.calibration == AUTO else IDENTITY if self.calibration == OFF else self.calibration


def take(body: dict[str, Any]) -> Options:
    """Removes `hemostat` from the body. Raises ApiError (400) for a name or value that does not exist.

    That holds for a misspelt `hemostat` too: vLLM would ignore it, and somebody believe that calibration is off.
    """
    if len(body) > MAX_FIELDS:
        raise invalid(f"The body has {len(body)} fields; at most {MAX_FIELDS} are taken.")
    for name in body:
        if name != FIELD and _means_ours(name):
            raise invalid(f"There is no field {name[:64]!a}.", name[:64], hint=f"Did you mean `{FIELD}`?")
    given = body.pop(FIELD, None)
    if given is None:
        return Options()
    if not isinstance(given, dict):
        raise invalid("`hemostat` is not an object.", "hemostat")
    for name in given:
        if name not in _NAMES:
            raise _unknown(f"`hemostat` has no field {name[:64]!a}.", f"hemostat.{name[:64]}", name, _NAMES)
    calibration = given.get("calibration", AUTO)
    if calibration not in (AUTO, OFF, IDENTITY) and not (
        isinstance(calibration, str) and _VERSION.fullmatch(calibration)
    ):
        raise invalid(
            '`hemostat.calibration` is "auto", "off" or a version ("cal-" and 16 hexadecimal digits).',
            "hemostat.calibration",
        )
    return Options(
        calibration=OFF if calibration == IDENTITY else calibration,
        shadow=_flag(given, "shadow", default=True),
        verify=_flag(given, "verify", default=False),
    )


def _means_ours(name: str) -> bool:
    """Whether a top-level field is `hemostat` but for case, punctuation or a letter or two; vLLM has none like it."""
    letters = "".join(filter(str.isalnum, name[:64].casefold()))
    if letters.startswith(FIELD):
        return True
    return len(letters) <= len(FIELD) + 2 and SequenceMatcher(None, letters, FIELD).ratio() >= _NEAR


def _flag(given: dict[str, Any], name: Literal["shadow", "verify"], *, default: bool) -> bool:
    value = given.get(name, default)
    if not isinstance(value, bool):
        raise invalid(f"`hemostat.{name}` is not true or false.", f"hemostat.{name}")
    return value


def _unknown(detail: str, param: str, word: str, valid: tuple[str, ...]) -> ApiError:
    hint = suggestion(word[:64], valid)
    return invalid(detail, param, hint=hint[:1].upper() + hint[1:] + ".")
