"""The shadow's side: the queue of samples to be scored again, and what scoring them found.

A sample is token ids that expire; the queue holds names.
"""

from __future__ import annotations

import builtins
from typing import Any, cast

from app.contracts.deployment import ShadowSample, ShadowStatus
from app.deployments import keys
from app.deployments.scripts import Scripts


class ShadowSide(Scripts):
    """Samples come in from the gateway and are taken out by the shadow process."""

    async def set_shadow(self, deployment_id: str, status: ShadowStatus) -> None:
        """What the shadow process last found. It is shown as stale where no shadow process has a lease."""
        await self._checked(
            deployment_id,
            await self._run("shadow", keys.deployment(deployment_id), deployment_id, status.model_dump_json()),
        )

    async def push_sample(self, deployment_id: str, sample: ShadowSample) -> bool:
        """Queues one request to be scored again, as token ids that expire. False: dropped, the queue is full.

        Raises HemostatError (UNAVAILABLE) where Redis has no room for samples.
        """
        await self.memory.require_room()
        answer = await self._run(
            "push",
            keys.deployment(deployment_id),
            deployment_id,
            sample.id,
            sample.model_dump_json(),
            self.settings.shadow_queue,
            int(self.settings.shadow_expiry_s * 1000),
        )
        return int(answer) == 1

    async def pop_samples(self, deployment_id: str, most: int, block_s: float = 0.0) -> builtins.list[ShadowSample]:
        """Takes up to `most` samples, oldest first; waits up to `block_s` (at most two seconds) for a first one."""
        queue = keys.queue(deployment_id)
        names = cast("builtins.list[str]", await cast(Any, self.client.lpop(queue, most)) or [])
        if not names and block_s > 0:
            answer = await cast(Any, self.client.blpop([queue], timeout=block_s))
            names = [answer[1]] if answer else []
        if not names:
            return []
        pipeline = self.client.pipeline(transaction=True)
        pipeline.mget([keys.sample(deployment_id, name) for name in names])
        pipeline.delete(*(keys.sample(deployment_id, name) for name in names))
        texts, _ = await pipeline.execute()
        return [ShadowSample.model_validate_json(text) for text in texts if text is not None]

    async def queue_depth(self, deployment_id: str) -> int:
        """How many samples wait."""
        return int(await self._run("depth", keys.queue(deployment_id), deployment_id))
