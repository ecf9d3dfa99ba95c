"""Whether what is to run fits into the device's memory: shares of it, added up before anything is started."""

from collections.abc import Iterable
from typing import Final

from app.contracts.deployment import Deployment, DeploymentState
from app.contracts.errors import ErrorCode, HemostatError
from app.settings import Settings

ROUNDING: Final = 1e-9


def check_shares(settings: Settings, deployments: Iterable[tuple[str, int]], *, pointer: str = "") -> None:
    """Checks deployments, as (name, replicas), and the diagnosis worker that share one device.

    Each replica takes `share_serving`, each deployment's shadow process `share_shadow`, the worker `share_diagnosis`.
    Raises HemostatError (DEPLOYMENT_CONFLICT) with the sum where it exceeds 1.
    """
    served = list(deployments)
    replicas = sum(count for _, count in served)
    serving, shadow = replicas * settings.share_serving, len(served) * settings.share_shadow
    total = serving + shadow + settings.share_diagnosis
    if total <= 1 + ROUNDING:
        return
    one = f"{replicas} replica{'' if replicas == 1 else 's'}"
    raise HemostatError(
        ErrorCode.DEPLOYMENT_CONFLICT,
        f"The memory shares of the device add up to {total:.2f}: {one} at {settings.share_serving:g}, "
        f"{len(served)} shadow at {settings.share_shadow:g} and diagnosis at {settings.share_diagnosis:g}.",
        hint="Serve fewer replicas, or lower HEMOSTAT_SHARE_SERVING, HEMOSTAT_SHARE_SHADOW or "
        "HEMOSTAT_SHARE_DIAGNOSIS, so that the sum is at most 1.",
        pointer=pointer,
    )


def shares_of(deployments: Iterable[Deployment]) -> list[tuple[str, int]]:
    """What `check_shares` takes, of those that are not being deleted."""
    return [(one.name, one.replicas) for one in deployments if one.state is not DeploymentState.DRAINING]
