"""What expired in memory leaves the server's disk, too.

A sample's key expires, but what it held stays in the server's append-only file until that is written anew, which the
server does by itself only once the file has grown a lot. So it is asked to, wherever samples were queued since it was
last written anew: an expiry after the first of them, and then at most once an expiry. A sample's token ids are on disk
for two expiries at most, and for as long as it takes to notice and to write.
"""

from __future__ import annotations

from typing import Any, cast

from redis.exceptions import ResponseError

from app.deployments import keys
from app.deployments.scripts import Scripts


class DiskSide(Scripts):
    """For whoever settles deployments; any number of processes may do it at once."""

    async def tidy_disk(self) -> bool:
        """Asks the server to write its append-only file anew where that is due; whether it does.

        Raises ResponseError where it refuses, once an expiry.
        """
        least_ms = int(self.settings.shadow_expiry_s * 1000)
        pipeline = self.client.pipeline(transaction=False)
        pipeline.hget(keys.DISK, "since")
        pipeline.time()
        since, (seconds, _) = await pipeline.execute()
        if since is None or 1000 * int(seconds) - int(since) < least_ms:
            return False
        told = await self._told()
        if not told.get("aof_enabled", 1) or told.get("aof_rewrite_in_progress") or told.get("aof_rewrite_scheduled"):
            return False
        run, well = str(told.get("run_id", "")), int(told.get("aof_last_bgrewrite_status", "ok") == "ok")
        if await self._run("disk", keys.DISK, least_ms, run, well) != "ask":
            return False
        # An expired key would be written, too: it is there until it is looked at, or the server comes across it.
        async for _ in self.client.scan_iter(match=keys.sample("*", "*"), count=1000):
            pass
        await cast(Any, self.client.bgrewriteaof())
        await cast(Any, self.client.hset(keys.DISK, "asked", run))
        return True

    async def _told(self) -> dict[str, Any]:
        """What the server says of itself; nothing where its user may not ask: it is asked to write all the same."""
        try:
            return dict(await self.client.info())
        except ResponseError:
            return {}
