"""What happened to a deployment: a stream of events, numbered from 1 without gaps."""

from __future__ import annotations

import builtins
import uuid
from typing import Any, Final

from app.contracts.deployment import DeploymentEvent
from app.deployments import keys
from app.deployments.scripts import Scripts, as_text

EVENTS_AT_ONCE: Final = 200


class EventLog(Scripts):
    """To append needs the deployment; its events can be read for an hour after it is gone."""

    async def event(self, deployment_id: str, event: DeploymentEvent) -> None:
        """Appends an event. Its `at` is Redis's own time, not the one given. Changes of state, version and replicas
        are given by the methods that make them."""
        body = event.model_dump(mode="json", exclude={"type", "at"}, exclude_defaults=True)
        rest = "".join(f",{as_text(name)}:{as_text(value)}" for name, value in body.items())
        answer = await self._run(
            "event", keys.deployment(deployment_id), deployment_id, uuid.uuid4().hex, event.type.value, rest
        )
        await self._checked(deployment_id, answer)

    async def events(
        self,
        deployment_id: str,
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
            {keys.events(deployment_id): f"{after}-0"},
            count=count,
            block=None if block_s is None else max(1, int(block_s * 1000)),
        )
        entries = answer[0][1] if answer else []
        return [
            (int(str(entry).partition("-")[0]), DeploymentEvent.model_validate_json(fields["data"]))
            for entry, fields in entries
        ]

    async def last_event(self, deployment_id: str) -> int:
        """Number of the newest event, 0 if there is none."""
        entries = await self.client.xrevrange(keys.events(deployment_id), count=1)
        return int(str(entries[0][0]).partition("-")[0]) if entries else 0
