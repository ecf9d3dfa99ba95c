"""Deployments in Redis: the record, its replicas' leases, its events, the queue of samples to be scored again.

Each side is in a module of its own, over the same scripts; here they are one object.
"""

from __future__ import annotations

from app.deployments.disk_side import DiskSide
from app.deployments.event_log import EventLog
from app.deployments.fit_side import FitSide
from app.deployments.owner_side import OwnerSide, is_deployment_id, new_deployment_id
from app.deployments.process_side import ProcessSide
from app.deployments.scripts import Evidence
from app.deployments.shadow_side import ShadowSide

__all__ = ["DeploymentStore", "Evidence", "is_deployment_id", "new_deployment_id"]


class DeploymentStore(OwnerSide, FitSide, EventLog, ProcessSide, ShadowSide, DiskSide):
    """Deployments over one Redis client (made by `app.jobs.connection.connect`: it must decode responses).

    Methods that take a `deployment_id` raise HemostatError (DEPLOYMENT_NOT_FOUND) if there is none, and all raise
    `redis.exceptions.RedisError` (or OSError) where Redis cannot be reached; nothing is half-written then.
    """
