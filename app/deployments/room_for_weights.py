"""Whether the share of a GPU holds the weights that verified decoding loads.

It is a lower bound: how much an engine takes beside them is known where vLLM is. What serves says so itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from app.contracts.deployment import Deployment
from app.contracts.errors import ErrorCode, HemostatError
from app.deployments.placement import CPU, Plan, Spot
from app.deployments.report import Device
from app.models.checkpoint import inspect
from app.models.registry import load_registry
from app.settings import Settings

_FLOAT32: Final = 4
_HALF: Final = 2


class _Sizes(NamedTuple):
    """Bytes of weights. `candidate` is 0 if a recipe decides them."""

    reference: int
    candidate: int


def too_small(settings: Settings, plan: Plan, deployment: Deployment) -> HemostatError | None:
    """The refusal of a deployment whose verifying process has too small a share for its weights. A shadow without room
    leaves the replica serving, and says so itself.

    None if the share is enough, or if devices or weights are not known. Reads the headers of checkpoints.
    """
    spot = plan.spots.get(deployment.name, {}).get("verify")
    sizes = None if spot is None or spot.devices == (CPU,) else _sizes(settings, deployment)
    if spot is None or sizes is None:
        return None
    device = min(_devices(plan, spot), key=lambda one: one.bytes)
    needed = sum(sizes) / len(spot.devices)
    if device.bytes and settings.share_verify * device.bytes < needed:
        return _refusal(settings.share_verify, device, spot.host, needed)
    return None


def _sizes(settings: Settings, deployment: Deployment) -> _Sizes | None:
    """None if a model is not known: its processes say what is wrong with it."""
    try:
        reference = _weights(settings, deployment.reference.model)
        return _Sizes(reference, 0 if deployment.model.recipe else _weights(settings, deployment.model.model))
    except HemostatError:
        return None


def _weights(settings: Settings, alias: str) -> int:
    """Bytes of a model's weights in the dtype that engines run it in; packed ones as they are packed."""
    entry = load_registry(settings.models_file).resolve(alias)
    info = inspect(entry.checkpoint_path())
    item = _FLOAT32 if entry.dtype == "float32" else _HALF
    return int(info.bytes) if info.quantization else item * info.parameters


def _devices(plan: Plan, spot: Spot) -> Sequence[Device]:
    return [one for host in plan.hosts if host.agent == spot.agent for one in host.devices if one.id in spot.devices]


def _refusal(share: float, device: Device, host: str, needed: float) -> HemostatError:
    least = math.ceil(100 * needed / device.bytes) / 100
    return HemostatError(
        ErrorCode.DEPLOYMENT_CONFLICT,
        f"The weights of both models take {needed / 1e9:.1f} GB. HEMOSTAT_SHARE_VERIFY={share:g} of device {device.id} "
        f"of {host} ({device.bytes / 1e9:.1f} GB) is {share * device.bytes / 1e9:.1f} GB.",
        hint="Take a GPU with more memory, split the model, or leave `verify` out."
        if least >= 1
        else f"Set HEMOSTAT_SHARE_VERIFY to more than {least:g} for the service and each agent, or leave `verify` "
        "out. The shares on a device add up to at most 1.",
    )
