"""Deployments in Redis: the record, its replicas' leases, its events, and the queue of samples to be scored again.

A hash a deployment, a stream of its events, a key with expiry for each replica's lease. Every change is one Lua script,
so it happens whole or not at all and is told in exactly one event, however many processes look; every script may be run
twice with the same effect, because the client sends a command again when its reply was lost. State and reason are
derived, by the same scripts, from the leases, the wanted replicas and what the agent reports.

Only commands of Redis 6.2. Nothing here needs FastAPI: the workers use it too.
"""

from __future__ import annotations

import builtins
import json
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final, Literal, cast

from redis.asyncio import Redis

from app.contracts.deployment import (
    CalibrationMode,
    Deployment,
    DeploymentEvent,
    DeploymentEventType,
    DeploymentPatch,
    DeploymentRequest,
    DeploymentState,
    Replica,
    ShadowSample,
    ShadowStatus,
    Version,
)
from app.contracts.errors import ErrorCode, HemostatError
from app.deployments import keys
from app.deployments.record import patch_fields, read_deployment, request_fields
from app.deployments.report import AgentReport
from app.deployments.shares import crowded, shares_for_script
from app.jobs.ids import new_ulid
from app.jobs.store import IDEMPOTENCY_TTL_S, Idempotency
from app.models.nearest import suggestion
from app.settings import Settings

ID_PATTERN: Final = re.compile(r"dep_[0-7][0-9A-HJKMNP-TV-Z]{25}")
EVENTS_AT_ONCE: Final = 200
_SCRIPTS: Final = (
    "create",
    "patch",
    "delete",
    "activate",
    "event",
    "fit",
    "renew",
    "report",
    "settle",
    "shadow",
    "push",
    "depth",
)
_CHANGING: Final = frozenset({"create", "patch", "delete", "activate"})

Evidence = Mapping[str, float | int | str | bool | None]
Settled = DeploymentState | Literal["forgotten"]


def new_deployment_id() -> str:
    """`dep_` and a ULID: ids sort by the time they were made."""
    return "dep_" + new_ulid()


def is_deployment_id(text: str) -> bool:
    """Whether `text` could be a deployment's id."""
    return ID_PATTERN.fullmatch(text) is not None


class DeploymentStore:
    """Deployments over one Redis client (made by `app.jobs.connection.connect`: it must decode responses).

    Methods that take an `id` raise HemostatError (DEPLOYMENT_NOT_FOUND) where there is none, and all raise
    `redis.exceptions.RedisError` (or OSError) where Redis cannot be reached; nothing is half-written then.

    `changes` counts what this object changed of the records themselves: what was read before it grew may be outdated.
    """

    def __init__(self, client: Redis, settings: Settings) -> None:
        self.client = client
        self.settings = settings
        self.changes = 0
        folder = files("app.deployments") / "lua"
        prelude = (folder / "prelude.lua").read_text(encoding="utf-8")
        self._scripts = {
            name: client.register_script(prelude + (folder / f"{name}.lua").read_text(encoding="utf-8"))
            for name in _SCRIPTS
        }

    async def _run(self, script: str, name: str, *arguments: str | int, also: Sequence[str] = ()) -> Any:
        try:
            return await self._scripts[script](keys=[name, *also], args=arguments)
        finally:  # also where the answer was lost: it may have been done
            if script in _CHANGING:
                self.changes += 1

    # --- the owner's side

    async def create(
        self,
        request: DeploymentRequest,
        *,
        deployment_id: str | None = None,
        hold: Idempotency | None = None,
        within_memory: bool = False,
    ) -> Deployment:
        """Writes the record of a deployment; the agent starts its processes. Raises DEPLOYMENT_EXISTS.

        `hold`: an idempotency key that this request reserved; it stands for the deployment from now on.
        `within_memory`: raises DEPLOYMENT_CONFLICT where it would not fit the memory shares beside the others; sum and
        record are one script, so that two requests at one time cannot both have the last share.

        Nothing else is checked here: that its model, recipe and profile are right is for `app.deployments.service`.
        """
        made = deployment_id or new_deployment_id()
        pairs = [part for pair in request_fields(made, request).items() for part in pair]
        answer = await self._run(
            "create",
            keys.deployment(made),
            made,
            request.name,
            hold.fingerprint if hold else "",
            IDEMPOTENCY_TTL_S,
            shares_for_script(self.settings) if within_memory else "",
            *pairs,
            also=[hold.name if hold else ""],
        )
        self._check_room(answer)
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

    async def exists(self, id: str) -> bool:  # noqa: A002
        """Whether there is a deployment of this id; one that is being deleted is one."""
        return bool(await self.client.exists(keys.deployment(id)))

    async def _not_found(self, name_or_id: str) -> HemostatError:
        names = sorted(cast("builtins.list[str]", await self.client.hkeys(keys.NAMES)))
        return HemostatError(
            ErrorCode.DEPLOYMENT_NOT_FOUND,
            f"There is no deployment {name_or_id[:128]!a}.",
            hint=suggestion(name_or_id, names) if names else "There are none yet: create one first.",
        )

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
        id: str,  # noqa: A002 - the contract's word
        patch: DeploymentPatch,
        *,
        within_memory: bool = False,
    ) -> Deployment:
        """Changes what the patch names. Raises DEPLOYMENT_CONFLICT for one that is being deleted, and with
        `within_memory` where replicas are added that do not fit the memory shares.

        Calibration `off` serves identity at once and keeps the version to go back to.
        """
        pairs = [part for pair in patch_fields(patch).items() for part in pair]
        shares = shares_for_script(self.settings) if within_memory else ""
        answer = await self._run("patch", keys.deployment(id), id, shares, *pairs)
        self._check_room(answer)
        await self._checked(id, answer)
        return await self.get(id)

    async def delete(self, id: str) -> None:  # noqa: A002
        """Marks it: the agent ends its processes, then it is forgotten. One that nobody runs is forgotten at once."""
        if await self._run("delete", keys.deployment(id), id) == "missing":
            raise await self._not_found(id)

    async def promote(
        self,
        id: str,  # noqa: A002
        version: Version,
        *,
        reason: str,
        evidence: Evidence | None = None,
        manual: bool = False,
        instead_of: Version | None = None,
    ) -> Deployment:
        """Makes `version` the active one; the one before stays loaded to go back to.

        Already active: nothing changes. Raises DEPLOYMENT_CONFLICT where calibration is off or the deployment is being
        deleted, unless a person asked (`manual`), where it is frozen, and where another version than `instead_of` is
        active: whoever decided on the grounds of that one must not undo what somebody else did meanwhile.
        """
        return await self._activate(id, "promote", version, reason, evidence, manual=manual, instead_of=instead_of)

    async def rollback(
        self,
        id: str,  # noqa: A002
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
        return await self._activate(id, "rollback", to or "", reason, evidence, manual=manual, instead_of=instead_of)

    async def _activate(
        self,
        id: str,  # noqa: A002
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
            keys.deployment(id),
            id,
            what,
            version,
            token,
            "1" if manual else "",
            _text(reason),
            _text(dict(evidence or {})),
            instead_of or "",
        )
        await self._checked(id, answer)
        return await self.get(id)

    async def freeze(self, id: str) -> Deployment:  # noqa: A002
        """The active version stays until a person changes it."""
        return await self.patch(id, DeploymentPatch(calibration=CalibrationMode.FROZEN))

    # --- fitting

    async def start_fit(self, id: str, job_id: str) -> str:  # noqa: A002
        """The one job that fits this deployment: `job_id`, or the one that somebody named before."""
        answer = cast(str, await self._run("fit", keys.deployment(id), id, "start", job_id))
        await self._checked(id, answer)
        return answer

    async def fit_made(self, id: str, job_id: str) -> None:  # noqa: A002
        """The job that fits it has a record. Repeating it changes nothing."""
        await self._checked(id, await self._run("fit", keys.deployment(id), id, "queued", job_id))

    async def was_fit_made(self, id: str, job_id: str) -> bool:  # noqa: A002
        """Whether the job has had a record: where there is none now, it has run out or was deleted."""
        return bool(await self.client.hget(keys.deployment(id), "fit_queued") == job_id)

    async def fit_ended(
        self,
        id: str,  # noqa: A002
        *,
        refused: bool,
        reason: str,
        version: Version | None = None,
        evidence: Evidence | None = None,
    ) -> None:
        """Says how a fit ended: `fitted`, or `refused` with the reason why identity goes on being served.

        It activates nothing: `promote` does. The same outcome said twice is said once.
        """
        kind = DeploymentEventType.REFUSED if refused else DeploymentEventType.FITTED
        answer = await self._run(
            "fit",
            keys.deployment(id),
            id,
            "end",
            "",
            kind.value,
            _text(reason),
            version or "",
            _text(dict(evidence or {})),
        )
        await self._checked(id, answer)

    # --- events

    async def event(self, id: str, event: DeploymentEvent) -> None:  # noqa: A002
        """Appends an event. Its `at` is Redis's own time, not the one given. Changes of state, version and replicas
        are told by the methods that make them."""
        body = event.model_dump(mode="json", exclude={"type", "at"}, exclude_defaults=True)
        rest = "".join(f",{_text(name)}:{_text(value)}" for name, value in body.items())
        answer = await self._run("event", keys.deployment(id), id, uuid.uuid4().hex, event.type.value, rest)
        await self._checked(id, answer)

    async def events(
        self,
        id: str,  # noqa: A002
        after: int = 0,
        block_s: float | None = None,
        *,
        count: int = EVENTS_AT_ONCE,
    ) -> builtins.list[tuple[int, DeploymentEvent]]:
        """Events numbered above `after` (from 1 without gaps; the oldest are let go), oldest first.

        Waits up to `block_s` (seconds, at most two) where there is none yet. Those of a deleted deployment are kept
        for an hour.
        """
        answer: Any = await self.client.xread(
            {keys.events(id): f"{after}-0"},
            count=count,
            block=None if block_s is None else max(1, int(block_s * 1000)),
        )
        entries = answer[0][1] if answer else []
        return [
            (int(str(entry).partition("-")[0]), DeploymentEvent.model_validate_json(fields["data"]))
            for entry, fields in entries
        ]

    async def last_event(self, id: str) -> int:  # noqa: A002
        """Number of the newest event, 0 where there is none."""
        entries = await self.client.xrevrange(keys.events(id), count=1)
        return int(str(entries[0][0]).partition("-")[0]) if entries else 0

    # --- replicas

    async def register(self, id: str, replica: Replica) -> None:  # noqa: A002
        """A process of the deployment says that it is there. Its lease runs out after `settings.replica_lease_s`."""
        await self.renew(id, replica)

    async def renew(self, id: str, replica: Replica) -> None:  # noqa: A002
        """Renews the lease and says how it is: call it every `settings.replica_renew_s`, and at once at a change.

        A lease that ran out, or that Redis lost, is taken anew by it. Raises DEPLOYMENT_NOT_FOUND for a deployment that
        was deleted: the process is to end.
        """
        seen = replica.model_copy(update={"seen_at": time.time()}).model_dump(mode="json")
        said = json.dumps(seen | {"secret": replica.secret}, ensure_ascii=False)
        lease_ms = int(self.settings.replica_lease_s * 1000)
        await self._checked(id, await self._run("renew", keys.deployment(id), id, replica.id, lease_ms, said))

    async def leave(self, id: str, replica_id: str) -> None:  # noqa: A002
        """The process goes, of its own will. A deployment that is gone already is no error."""
        await self._run("renew", keys.deployment(id), id, replica_id, 0, "")

    async def replicas(self, id: str) -> builtins.list[Replica]:  # noqa: A002
        """The processes whose lease holds, by id."""
        names = sorted(cast("builtins.list[str]", await self.client.hkeys(keys.replicas(id))))
        texts = await self.client.mget([keys.replica(id, name) for name in names]) if names else []
        return [Replica.model_validate_json(text) for text in texts if text is not None]

    # --- the agent and the sweep

    async def report(self, id: str, report: AgentReport, *, leaves: bool = False) -> Settled | Literal["other"]:  # noqa: A002
        """What the agent knows of the deployment's processes, with a lease like a replica's; `leaves`: it gives it up.

        The first agent that reports has the deployment until it leaves or falls silent; others are answered "other".
        """
        lease_ms = 0 if leaves else int(self.settings.replica_lease_s * 1000)
        said = report.model_dump_json()
        answer = await self._run("report", keys.deployment(id), id, lease_ms, said, report.agent)
        return "other" if answer == "other" else self._settled(answer)

    async def settle(self, id: str) -> Settled:  # noqa: A002
        """Brings state and reason to what is known now: leases that ran out are noticed by whoever calls this."""
        return self._settled(await self._run("settle", keys.deployment(id), id))

    # --- the shadow process

    async def set_shadow(self, id: str, status: ShadowStatus) -> None:  # noqa: A002
        """What the shadow process last found. It is shown as stale where no shadow process has a lease."""
        await self._checked(id, await self._run("shadow", keys.deployment(id), id, status.model_dump_json()))

    async def push_sample(self, id: str, sample: ShadowSample) -> bool:  # noqa: A002
        """Queues one request to be scored again, as token ids that expire. False: dropped, the queue is full."""
        answer = await self._run(
            "push",
            keys.deployment(id),
            id,
            sample.id,
            sample.model_dump_json(),
            self.settings.shadow_queue,
            int(self.settings.shadow_expiry_s * 1000),
        )
        return int(answer) == 1

    async def pop_samples(self, id: str, most: int, block_s: float = 0.0) -> builtins.list[ShadowSample]:  # noqa: A002
        """Takes up to `most` samples, oldest first; waits up to `block_s` (at most two seconds) for a first one."""
        queue = keys.queue(id)
        names = cast("builtins.list[str]", await cast(Any, self.client.lpop(queue, most)) or [])
        if not names and block_s > 0:
            answer = await cast(Any, self.client.blpop([queue], timeout=block_s))
            names = [answer[1]] if answer else []
        if not names:
            return []
        pipeline = self.client.pipeline(transaction=True)
        pipeline.mget([keys.sample(id, name) for name in names])
        pipeline.delete(*(keys.sample(id, name) for name in names))
        texts, _ = await pipeline.execute()
        return [ShadowSample.model_validate_json(text) for text in texts if text is not None]

    async def queue_depth(self, id: str) -> int:  # noqa: A002
        """How many samples wait."""
        return int(await self._run("depth", keys.queue(id), id))

    # --- answers of the scripts

    async def _checked(self, id: str, answer: str) -> None:  # noqa: A002
        if answer == "missing":
            raise await self._not_found(id)
        refusal = _REFUSALS.get(answer)
        if refusal is not None:
            raise HemostatError(ErrorCode.DEPLOYMENT_CONFLICT, refusal[0], hint=refusal[1])

    def _check_room(self, answer: str) -> None:
        word, *counts = answer.split()
        if word == "crowded":
            replicas, served, verifying = map(int, counts)
            raise crowded(self.settings, replicas, served, verifying, pointer="/replicas")

    @staticmethod
    def _settled(answer: str) -> Settled:
        return "forgotten" if answer in ("forgotten", "missing") else DeploymentState(answer)


_REFUSALS: Final[Mapping[str, tuple[str, str]]] = {
    "draining": ("The deployment is being deleted.", "Wait until it is gone, then create it again."),
    "frozen": ("The deployment is frozen: its version stays.", "Unfreeze it first, or promote by hand."),
    "other": ("Another version came into force meanwhile.", "Look at the deployment again, and decide anew."),
    "off": ("The deployment's calibration is off.", 'Set `calibration` to "auto" or "frozen" first.'),
}


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
