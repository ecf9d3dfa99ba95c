"""Whether what is to run fits into the device's memory: shares of it, added up before anything is started.

What is asked for is checked by the script that writes it (`lua/prelude.lua`, `crowded`), so that of two requests at one
time the second one sees the first. Here is the same sum for anyone who starts processes, and its words.
"""

import json
from collections.abc import Iterable
from typing import Final, NamedTuple

from app.contracts.errors import ErrorCode, HemostatError
from app.settings import Settings

ROUNDING: Final = 1e-9


class Wanted(NamedTuple):
    """What of a deployment takes memory."""

    name: str
    replicas: int
    verify: bool = False


def check_shares(settings: Settings, deployments: Iterable[Wanted], *, pointer: str = "") -> None:
    """Checks deployments that share one device with the diagnosis worker.

    Each replica takes `share_serving`, each deployment's shadow process `share_shadow`, its verifying process, where
    there is one, `share_verify`, the worker `share_diagnosis`. Raises HemostatError (DEPLOYMENT_CONFLICT) with the sum
    where it exceeds 1.
    """
    served = list(deployments)
    replicas = sum(one.replicas for one in served)
    verifying = sum(one.verify for one in served)
    if _total(settings, replicas, len(served), verifying) > 1 + ROUNDING:
        raise crowded(settings, replicas, len(served), verifying, pointer=pointer)


def _total(settings: Settings, replicas: int, served: int, verifying: int) -> float:
    return (
        replicas * settings.share_serving
        + served * settings.share_shadow
        + verifying * settings.share_verify
        + settings.share_diagnosis
    )


def crowded(settings: Settings, replicas: int, served: int, verifying: int, *, pointer: str = "") -> HemostatError:
    """The refusal of so many replicas, of so many deployments, of which so many verify."""
    total = _total(settings, replicas, served, verifying)
    one = f"{replicas} replica{'' if replicas == 1 else 's'}"
    verified = f", {verifying} verify at {settings.share_verify:g}" if verifying else ""
    setting = ", HEMOSTAT_SHARE_VERIFY" if verifying else ""
    return HemostatError(
        ErrorCode.DEPLOYMENT_CONFLICT,
        f"The memory shares of the device add up to {total:.2f}: {one} at {settings.share_serving:g}, "
        f"{served} shadow at {settings.share_shadow:g}{verified} and diagnosis at {settings.share_diagnosis:g}.",
        hint=f"Serve fewer replicas, or lower HEMOSTAT_SHARE_SERVING, HEMOSTAT_SHARE_SHADOW{setting} or "
        "HEMOSTAT_SHARE_DIAGNOSIS, so that the sum is at most 1.",
        pointer=pointer,
    )


def shares_for_script(settings: Settings) -> str:
    """What `crowded` of the scripts takes: the shares and the most that they may add up to, as JSON."""
    return json.dumps(
        {
            "serve": settings.share_serving,
            "shadow": settings.share_shadow,
            "verify": settings.share_verify,
            "diagnosis": settings.share_diagnosis,
            "most": 1 + ROUNDING,
        }
    )
