"""A deployment's record as it is written to, and read back from, Redis."""

import json
from collections.abc import Mapping
from typing import Final

from app.contracts.deployment import (
    IDENTITY,
    CalibrationMode,
    Deployment,
    DeploymentPatch,
    DeploymentRequest,
    DeploymentState,
    DriftState,
    Replica,
    ShadowStatus,
)

UNMODIFIED: Final = "the model is its own reference: there is nothing to calibrate"
UNWATCHED: Final = "no shadow process runs: this is what the last one found"
_INTERNAL: Final = frozenset({"events", "draining", "was_ready", "fit_ended", "fit_queued", "before_off", "hold"})


def request_fields(deployment_id: str, request: DeploymentRequest) -> dict[str, str]:
    """What a creation writes: the contract's fields, each as JSON."""
    body = request.model_dump(mode="json", exclude={"version"})
    off = request.calibration is CalibrationMode.OFF
    body |= {
        "id": deployment_id,
        "active_version": IDENTITY if off else request.version or IDENTITY,
        "previous_version": request.version if off else None,
        "activated_at": 0 if request.version and not off else None,  # the time is Redis's
        "fit_job": None,
        "fit_reason": "calibration is off" if off else "",
        "state": DeploymentState.STARTING.value,
        "reason": "",
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in body.items()}


def patch_fields(patch: DeploymentPatch) -> dict[str, str]:
    """What a change writes: the fields that it names, each as JSON. `drift_threshold` alone may be set to null."""
    body = patch.model_dump(mode="json", exclude_unset=True)
    if patch.sampling is not None:  # whole, as a creation writes it, so that the same is no change
        body["sampling"] = patch.sampling.model_dump(mode="json")
    return {
        name: json.dumps(value, ensure_ascii=False)
        for name, value in body.items()
        if value is not None or name == "drift_threshold"
    }


def read_deployment(
    fields: Mapping[str, str], running: tuple[Replica, ...] = (), shadow: ShadowStatus | None = None
) -> Deployment:
    """The deployment of a record's fields, with the replicas that live and what its shadow process last found."""
    body = {name: json.loads(value) for name, value in fields.items() if name not in _INTERNAL}
    made = Deployment.model_validate(body | {"running": running, "shadow": _heard(shadow, running)})
    if made.unmodified and made.active_version == IDENTITY and not made.fit_reason:
        return made.model_copy(update={"fit_reason": UNMODIFIED})
    return made


def _heard(shadow: ShadowStatus | None, running: tuple[Replica, ...]) -> ShadowStatus | None:
    """What a process found that is gone is no news, whatever it was."""
    if shadow is None or any(one.role == "shadow" for one in running):
        return shadow
    return shadow.model_copy(update={"drift": DriftState.STALE, "reason": UNWATCHED})
