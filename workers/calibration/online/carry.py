"""Carrying out what was decided: events, promotions and rollbacks in the store, a record on disk.

Each decision is written down before it is carried out, and forgotten only afterwards. What turns out to be impossible
(a person froze the deployment meanwhile) is reported as refused.
"""

from __future__ import annotations

import logging
from pathlib import Path

from app.contracts.deployment import Deployment, DeploymentEvent, DeploymentEventType, Version
from app.contracts.errors import ErrorCode, HemostatError
from app.deployments.store import DeploymentStore
from workers.calibration.online import decisions
from workers.calibration.online.book import Monitor
from workers.calibration.online.controller import Action, Step
from workers.calibration.online.record import Scalar
from workers.calibration.online.state import Todo

logger = logging.getLogger(__name__)

_TOLD = {
    Action.ALARM: DeploymentEventType.ALARM,
    Action.CLEARED: DeploymentEventType.CLEARED,
    Action.REJECT: DeploymentEventType.REFUSED,
}


async def carry_out(book: Monitor, todo: Todo, store: DeploymentStore, folder: Path, now: float) -> Deployment | None:
    """Carries out one decision; the deployment where its active version may have changed.

    Raises RedisError or OSError where Redis is away: nothing is lost, it is to be called again.
    """
    step, deployment = todo.step, book.deployment
    file = decisions.write(folder, deployment.id, step, todo.active, todo.at)
    evidence: dict[str, Scalar] = {**step.evidence, "record": file}
    changed: Deployment | None = None
    if step.action in _TOLD:
        await _tell(store, deployment.id, _TOLD[step.action], step.reason, step.version or todo.active, evidence)
    elif deployment.active_version != todo.active:
        logger.info("%s of %s is void: another version came into force", step.action.value, todo.active)
    else:
        changed = await _activate(store, deployment.id, step, todo.active, evidence)
    book.carried_out(todo, now)
    logger.info("%s: %s", step.action.value, step.reason)
    return changed


async def _activate(
    store: DeploymentStore, id_: str, step: Step, active: Version, evidence: dict[str, Scalar]
) -> Deployment | None:
    """Only in place of `active`, which the evidence is about: the record at hand may be as old as a batch takes."""
    try:
        if step.action is Action.PROMOTE and step.version is not None:
            return await store.promote(id_, step.version, reason=step.reason, evidence=evidence, instead_of=active)
        return await store.rollback(id_, reason=step.reason, evidence=evidence, to=step.version, instead_of=active)
    except HemostatError as error:
        if error.code is not ErrorCode.DEPLOYMENT_CONFLICT:
            raise
        await _tell(store, id_, DeploymentEventType.REFUSED, error.detail, step.version, evidence)
        return None


async def _tell(
    store: DeploymentStore,
    id_: str,
    kind: DeploymentEventType,
    reason: str,
    version: Version | None,
    evidence: dict[str, Scalar],
) -> None:
    event = DeploymentEvent(type=kind, at=0.0, reason=reason, version=version, evidence=evidence)
    await store.event(id_, event)
