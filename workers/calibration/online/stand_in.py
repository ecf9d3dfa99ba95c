"""What is served in the active version's stead where no replica can serve it.

A replica refuses a profile that was fitted for another checkpoint, and says that it is degraded. Put a worse checkpoint
in place of the one that was deployed, and every request is answered without the active version; that must not hide from
the drift alarm. A version that is still being loaded is not meant.
"""

from __future__ import annotations

from app.contracts.deployment import IDENTITY, Deployment, DeploymentState, Version

_SERVING = (DeploymentState.READY, DeploymentState.DEGRADED)


def stand_in(deployment: Deployment) -> Version | None:
    """The version that the gateway gives instead, by its rule: the one before, else identity. None: none is needed."""
    serving = [one for one in deployment.running if one.role == "serve" and one.state in _SERVING]
    refused = [
        one.state is DeploymentState.DEGRADED and deployment.active_version not in one.versions for one in serving
    ]
    if not serving or not all(refused):
        return None
    previous = deployment.previous_version
    return previous if previous is not None and all(previous in one.versions for one in serving) else IDENTITY
