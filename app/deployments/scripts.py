"""Every change of what Redis knows of deployments is one Lua script: it happens whole or not at all, and is reported in
exactly one event, however many processes look. Every script may be run twice with the same effect, because the client
sends a command again when its reply was lost.

Only commands of Redis 6.2. Nothing here needs FastAPI: the workers use it too.
"""

from __future__ import annotations

import builtins
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final, cast

from redis.asyncio import Redis

from app.contracts.errors import ErrorCode, HemostatError
from app.deployments import keys
from app.memory import RedisMemory
from app.models.nearest import suggestion
from app.settings import Settings

_SCRIPTS: Final = (
    "create",
    "patch",
    "delete",
    "activate",
    "event",
    "fit",
    "renew",
    "announce",
    "report",
    "settle",
    "shadow",
    "push",
    "depth",
    "disk",
    "suspect",
)
_CHANGING: Final = frozenset({"create", "patch", "delete", "activate"})
Evidence = Mapping[str, float | int | str | bool | None]


class Scripts:
    """Runs scripts over one Redis client (made by `app.jobs.connection.connect`: it must decode responses), and says
    what their answers mean.

    `changes` counts what this object changed of the records themselves: what was read before it grew may be outdated.
    """

    def __init__(self, client: Redis, settings: Settings) -> None:
        self.client = client
        self.settings = settings
        self.memory = RedisMemory(client)
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

    async def _checked(self, deployment_id: str, answer: str) -> None:
        if answer == "missing":
            raise await self._not_found(deployment_id)
        refusal = _REFUSALS.get(answer)
        if refusal is not None:
            raise HemostatError(ErrorCode.DEPLOYMENT_CONFLICT, refusal[0], hint=refusal[1])

    async def _not_found(self, name_or_id: str) -> HemostatError:
        names = sorted(cast("builtins.list[str]", await self.client.hkeys(keys.NAMES)))
        return HemostatError(
            ErrorCode.DEPLOYMENT_NOT_FOUND,
            f"There is no deployment {name_or_id[:128]!a}.",
            hint=suggestion(name_or_id, names) if names else "There are none yet: create one first.",
        )


_REFUSALS: Final[Mapping[str, tuple[str, str]]] = {
    "draining": ("The deployment is being deleted.", "Wait until it is gone, then create it again."),
    "frozen": ("The deployment is frozen: its version stays.", "Unfreeze it first, or promote by hand."),
    "other": ("Another version came into force meanwhile.", "Look at the deployment again, and decide again."),
    "off": ("The deployment's calibration is off.", 'Set `calibration` to "auto" or "frozen" first.'),
}


def as_text(value: object) -> str:
    """JSON, as scripts and records have it. ValueError for what JSON has not."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
