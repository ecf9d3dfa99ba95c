"""The owner's side: a deployment's record is written, read, changed and deleted, and its version promoted or gone back
from. A hash a deployment.
"""

from __future__ import annotations

import asyncio
import builtins
import re
import uuid
from collections.abc import Sequence
from typing import Final, cast

from app.contracts.deployment import (
    CalibrationMode,
    Deployment,
    DeploymentPatch,
    DeploymentRequest,
    Replica,
    ShadowStatus,
    Version,
)
from app.contracts.errors import ErrorCode, HemostatError
from app.deployments import keys
from app.deployments.place_side import PlaceSide, most_devices, planned, refused
from app.deployments.placement import host_to_come
from app.deployments.record import patch_fields, read_deployment, request_fields
from app.deployments.room_for_weights import too_small
from app.deployments.scripts import Evidence, as_text
from app.jobs.ids import new_ulid
from app.jobs.store import Idempotency

ID_PATTERN: Final = re.compile(r"dep_[0-7][0-9A-HJKMNP-TV-Z]{25}")


def new_deployment_id() -> str:
    """`dep_` and a ULID: ids sort by the time they were made."""
    return "dep_" + new_ulid()


def is_deployment_id(text: str) -> bool:
    """Whether `text` could be a deployment's id."""
    return ID_PATTERN.fullmatch(text) is not None


class OwnerSide(PlaceSide):
    """Methods that take a `deployment_id` raise HemostatError (DEPLOYMENT_NOT_FOUND) if there is none."""

    async def create(
        self,
        request: DeploymentRequest,
        *,
        deployment_id: str | None = None,
        hold: Idempotency | None = None,
        within_memory: bool = False,
    ) -> Deployment:
        """Writes the record of a deployment; the agent starts its processes. Raises DEPLOYMENT_EXISTS.

        `hold`: the request's idempotency key; it means the deployment from now on. `within_memory`: raises
        DEPLOYMENT_CONFLICT if the devices have no room for it beside the others, or a share does not hold the weights.
        What is written was counted when it is: of two requests at one time only one gets the last share.

        Nothing else is checked here: that its model, recipe and profile are right is for `app.deployments.service`.
        """
        made = deployment_id or new_deployment_id()
        fields = request_fields(made, request)
        pairs = [part for pair in fields.items() for part in pair]
        asked = read_deployment(fields | {"created_at": "0", "updated_at": "0"})
        answer = "again"
        while answer == "again":
            turn, refusal = await self._room(asked) if within_memory else ("", None)
            answer = await self._run(
                "create",
                keys.deployment(made),
                made,
                request.name,
                hold.fingerprint if hold else "",
                turn,
                *pairs,
                also=[hold.name if hold else ""],
            )
            if answer == "again" and refusal is not None:
                raise refusal
        if answer != "created":
            raise HemostatError(
                ErrorCode.DEPLOYMENT_EXISTS,
                f"A deployment named {request.name} exists ({answer}).",
                hint="Give another name, change it with PATCH, or delete it first.",
                pointer="/name",
            )
        return await self.get(made)

    async def resolve(self, name_or_id: str) -> str:
        """The id of a deployment. Raises DEPLOYMENT_NOT_FOUND, with the nearest name."""
        found = await self.client.hget(keys.NAMES, name_or_id)
        if found is not None:
            return cast(str, found)
        if is_deployment_id(name_or_id) and await self.exists(name_or_id):
            return name_or_id
        raise await self._not_found(name_or_id)

    async def exists(self, deployment_id: str) -> bool:
        """Whether there is a deployment of this id; one that is being deleted is one."""
        return bool(await self.client.exists(keys.deployment(deployment_id)))

    async def get(self, name_or_id: str) -> Deployment:
        """One deployment, with its running replicas and the shadow's last word."""
        deployment_id = await self.resolve(name_or_id)
        found = await self._read([deployment_id])
        if not found:
            raise await self._not_found(name_or_id)
        return found[0]

    async def list(self) -> builtins.list[Deployment]:
        """Every deployment, oldest first."""
        return await self._read(cast("builtins.list[str]", await self.client.zrange(keys.INDEX, 0, -1)))

    async def ids(self) -> builtins.list[str]:
        """Ids of every deployment, oldest first."""
        return cast("builtins.list[str]", await self.client.zrange(keys.INDEX, 0, -1))

    async def _read(self, ids: Sequence[str]) -> builtins.list[Deployment]:
        if not ids:
            return []
        pipeline = self.client.pipeline(transaction=False)
        for deployment_id in ids:
            pipeline.hgetall(keys.deployment(deployment_id))
            pipeline.hkeys(keys.replicas(deployment_id))
            pipeline.get(keys.shadow(deployment_id))
        rows = await pipeline.execute()
        leases = [
            keys.replica(deployment_id, replica)
            for deployment_id, replicas in zip(ids, rows[1::3], strict=True)
            for replica in replicas
        ]
        texts = dict(zip(leases, await self.client.mget(leases), strict=True)) if leases else {}
        found = []
        for deployment_id, fields, replicas, shadow in zip(ids, rows[::3], rows[1::3], rows[2::3], strict=True):
            if not fields:
                continue  # deleted meanwhile
            said = (texts[keys.replica(deployment_id, replica)] for replica in sorted(replicas))
            running = tuple(Replica.model_validate_json(text) for text in said if text is not None)
            status = ShadowStatus.model_validate_json(shadow) if shadow else None
            found.append(read_deployment(fields, running, status))
        return found

    async def patch(
        self,
        deployment_id: str,
        patch: DeploymentPatch,
        *,
        within_memory: bool = False,
    ) -> Deployment:
        """Changes what the patch names. Raises DEPLOYMENT_CONFLICT for one that is being deleted, and with
        `within_memory` where replicas are added that the devices have no room for.

        Calibration `off` serves identity at once and keeps the version to go back to.
        """
        pairs = [part for pair in patch_fields(patch).items() for part in pair]
        answer = "again"
        while answer == "again":
            turn, refusal = "", None
            if within_memory and patch.replicas is not None:
                grown = (await self.get(deployment_id)).model_copy(update={"replicas": patch.replicas})
                turn, refusal = await self._room(grown)
            answer = await self._run("patch", keys.deployment(deployment_id), deployment_id, turn, *pairs)
            if answer == "again" and refusal is not None:
                raise refusal
        await self._checked(deployment_id, answer)
        return await self.get(deployment_id)

    async def delete(self, deployment_id: str) -> None:
        """Marks it: the agent ends its processes, then it is forgotten. One that no one runs is forgotten at once."""
        if await self._run("delete", keys.deployment(deployment_id), deployment_id) == "missing":
            raise await self._not_found(deployment_id)

    async def promote(
        self,
        deployment_id: str,
        version: Version,
        *,
        reason: str,
        evidence: Evidence | None = None,
        manual: bool = False,
        instead_of: Version | None = None,
    ) -> Deployment:
        """Makes `version` the active one; the one before stays loaded to go back to.

        Already active: nothing changes. Raises DEPLOYMENT_CONFLICT if calibration is off, if the deployment is being
        deleted, or if it is frozen and no person asked (`manual`). It does so too if another version than `instead_of`
        is active: the decision was about that one.
        """
        return await self._activate(
            deployment_id, "promote", version, reason, evidence, manual=manual, instead_of=instead_of
        )

    async def rollback(
        self,
        deployment_id: str,
        *,
        reason: str,
        evidence: Evidence | None = None,
        to: Version | None = None,
        manual: bool = False,
        instead_of: Version | None = None,
    ) -> Deployment:
        """Goes back to `to`, else to the version before, else to identity; there already: nothing changes.

        What was gone back from is no longer `previous_version`. Raises DEPLOYMENT_CONFLICT as `promote` does.
        """
        return await self._activate(
            deployment_id, "rollback", to or "", reason, evidence, manual=manual, instead_of=instead_of
        )

    async def _activate(
        self,
        deployment_id: str,
        what: str,
        version: str,
        reason: str,
        evidence: Evidence | None,
        *,
        manual: bool,
        instead_of: Version | None,
    ) -> Deployment:
        token = uuid.uuid4().hex
        answer = await self._run(
            "activate",
            keys.deployment(deployment_id),
            deployment_id,
            what,
            version,
            token,
            "1" if manual else "",
            as_text(reason),
            as_text(dict(evidence or {})),
            instead_of or "",
        )
        await self._checked(deployment_id, answer)
        return await self.get(deployment_id)

    async def freeze(self, deployment_id: str) -> Deployment:
        """The active version stays until a person changes it."""
        return await self.patch(deployment_id, DeploymentPatch(calibration=CalibrationMode.FROZEN))

    async def _room(self, asked: Deployment) -> tuple[str, HemostatError | None]:
        """What `outdated` of the scripts compares, and the refusal if `asked` does not fit beside all others.

        With a refusal it is outdated, so that the script can say what else is wrong.
        """
        turn = cast(str, await self.client.get(keys.TURN) or "none")
        listed = await self.list()
        others = [one for one in listed if one.id != asked.id]
        deployments = sorted([*others, asked], key=lambda one: one.id)
        hosts = await self.hosts() or [host_to_come(most_devices(self.settings, deployments))]
        said = await self.reports(one.id for one in deployments)
        before = planned(self.settings, hosts, others, said).lacking
        plan = planned(self.settings, hosts, deployments, said)
        for one in deployments:
            if one.name in plan.lacking and one.name not in before:
                return "refused", refused(self.settings, plan, one, pointer="/replicas")
        new = len(others) == len(listed)
        refusal = await asyncio.to_thread(too_small, self.settings, plan, asked) if new else None
        return ("refused" if refusal else turn), refusal
