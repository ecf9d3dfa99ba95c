"""Carrying out what was decided: events, promotions and rollbacks in the store.

A decision is saved before it is carried out, and forgotten only afterwards. One that is impossible by then (a person
froze the deployment) is reported as refused.
"""

from __future__ import annotations

import logging

from app.contracts.deployment import Deployment, DeploymentEvent, DeploymentEventType, Version
from app.contracts.errors import ErrorCode, HemostatError
from app.deployments.store import DeploymentStore
from workers.calibration.online.controller import Action, Scalar, Step
from workers.calibration.online.monitor import Monitor
from workers.calibration.online.state import Todo

logger = logging.getLogger(__name__)

_EVENTS = {
    Action.ALARM: DeploymentEventType.ALARM,
    Action.CLEARED: DeploymentEventType.CLEARED,
    Action.REJECT: DeploymentEventType.REFUSED,
}


async def carry_out(book: Monitor, todo: Todo, store: DeploymentStore, now: float) -> Deployment | None:
    """Carries out one decision; the deployment where its active version may have changed.

    Raises RedisError or OSError if Redis is away: nothing is lost, it is to be called again.
    """
    step, deployment = todo.step, book.deployment
    changed: Deployment | None = None
    if step.action in _EVENTS:
        await _report(
            store, deployment.id, _EVENTS[step.action], step.reason, step.version or todo.active, step.evidence
        )
    elif deployment.active_version != todo.active:
        logger.info("%s of %s is void: another version came into force", step.action.value, todo.active)
    else:
        changed = await _activate(store, deployment.id, step, todo.active)
    book.carried_out(todo, now)
    logger.info("%s: %s", step.action.value, step.reason)
    return changed


async def _activate(store: DeploymentStore, id_: str, step: Step, active: Version) -> Deployment | None:
    """Only in place of `active`, which the evidence is about: the record at hand may be as old as a batch takes."""
    try:
        if step.action is Action.PROMOTE and step.version is not None:
            return await store.promote(id_, step.version, reason=step.reason, evidence=step.evidence, instead_of=active)
        return await store.rollback(id_, reason=step.reason, evidence=step.evidence, to=step.version, instead_of=active)
    except HemostatError as error:
        if error.code is not ErrorCode.DEPLOYMENT_CONFLICT:
            raise
        await _report(store, id_, DeploymentEventType.REFUSED, error.detail, step.version, step.evidence)
        return None


async def _report(
    store: DeploymentStore,
    id_: str,
    kind: DeploymentEventType,
    reason: str,
    version: Version | None,
    evidence: dict[str, Scalar],
) -> None:
    event = DeploymentEvent(type=kind, at=0.0, reason=reason, version=version, evidence=evidence)
    await store.event(id_, event)
