"""Whether the shares of GPUs hold the weights that a deployment's processes load.

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

    def of(self, role: str) -> int:
        """What a process loads at once: the shadow at least one model, verified decoding both."""
        return max(self) if role == "shadow" else sum(self)


def too_small(settings: Settings, plan: Plan, deployment: Deployment) -> HemostatError | None:
    """The refusal of a deployment whose shadow or verifying process has too small a share for its weights.

    None if each share is enough, or if devices or weights are not known. Reads the headers of checkpoints.
    """
    spots = plan.spots.get(deployment.name, {})
    shares = {"shadow": settings.share_shadow, "verify": settings.share_verify}
    placed = [(role, spots[role]) for role in shares if role in spots and spots[role].devices != (CPU,)]
    sizes = _sizes(settings, deployment) if placed else None
    if sizes is None:
        return None
    for role, spot in placed:
        device = min(_devices(plan, spot), key=lambda one: one.bytes)
        needed = sizes.of(role) / len(spot.devices)
        if device.bytes and shares[role] * device.bytes < needed:
            return _refusal(role, shares[role], device, spot.host, needed)
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


def _refusal(role: str, share: float, device: Device, host: str, needed: float) -> HemostatError:
    name, least = f"HEMOSTAT_SHARE_{role.upper()}", math.ceil(100 * needed / device.bytes) / 100
    what = "a model" if role == "shadow" else "both models"
    return HemostatError(
        ErrorCode.DEPLOYMENT_CONFLICT,
        f"The weights of {what} take {needed / 1e9:.1f} GB. {name}={share:g} of device {device.id} of {host} "
        f"({device.bytes / 1e9:.1f} GB) is {share * device.bytes / 1e9:.1f} GB.",
        hint="Take a GPU with more memory, or split the model."
        if least >= 1
        else f"Set {name} to more than {least:g}. The shares on a device add up to at most 1.",
    )
