"""Whether what is to run fits into the device's memory: shares of it, added up before anything is started."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from app.contracts.deployment import Deployment, DeploymentState
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
    total = (
        replicas * settings.share_serving
        + len(served) * settings.share_shadow
        + verifying * settings.share_verify
        + settings.share_diagnosis
    )
    if total <= 1 + ROUNDING:
        return
    one = f"{replicas} replica{'' if replicas == 1 else 's'}"
    verified = f", {verifying} verify at {settings.share_verify:g}" if verifying else ""
    setting = ", HEMOSTAT_SHARE_VERIFY" if verifying else ""
    raise HemostatError(
        ErrorCode.DEPLOYMENT_CONFLICT,
        f"The memory shares of the device add up to {total:.2f}: {one} at {settings.share_serving:g}, "
        f"{len(served)} shadow at {settings.share_shadow:g}{verified} and diagnosis at {settings.share_diagnosis:g}.",
        hint=f"Serve fewer replicas, or lower HEMOSTAT_SHARE_SERVING, HEMOSTAT_SHARE_SHADOW{setting} or "
        "HEMOSTAT_SHARE_DIAGNOSIS, so that the sum is at most 1.",
        pointer=pointer,
    )


def shares_of(deployments: Iterable[Deployment]) -> list[Wanted]:
    """What `check_shares` takes, of those that are not being deleted."""
    return [
        Wanted(one.name, one.replicas, one.verify) for one in deployments if one.state is not DeploymentState.DRAINING
    ]
