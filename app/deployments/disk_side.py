"""What expired in memory leaves the server's disk, too.

A sample's key expires, but its content stays in the server's append-only file until that is written again. By itself
the server does so only once the file has grown a lot. So it is asked to, wherever samples were queued since it was last
written again: an expiry after the first of them, and then at most once an expiry. So a sample's token ids are on disk
for two expiries at most, plus the time to notice and to write.
"""

from __future__ import annotations

from typing import Any, cast

from redis.exceptions import ResponseError

from app.deployments import keys
from app.deployments.scripts import Scripts


class DiskSide(Scripts):
    """For anyone who settles deployments; any number of processes may do it at once."""

    async def suspect_disk(self) -> None:
        """What was just deleted, or queued before this process began, is on the server's disk: it leaves it, too."""
        await self._run("suspect", keys.DISK, self._expiry_ms)

    async def tidy_disk(self) -> bool:
        """Asks the server to write its append-only file again where that is due; whether it does.

        It goes through all keys of the database. Raises ResponseError if the server refuses, or does not say how it
        is, once an expiry.
        """
        pipeline = self.client.pipeline(transaction=False)
        pipeline.hget(keys.DISK, "since")
        pipeline.time()
        since, (seconds, microseconds) = await pipeline.execute()
        at = 1000 * int(seconds) + int(microseconds) // 1000
        if since is None or abs(at - int(since)) < self._expiry_ms:
            return False
        run, well, refused = "", False, None
        try:
            told: dict[str, Any] = await self.client.info()
            # Asked without one, the server would begin an append-only file.
            if not told.get("aof_enabled") or told.get("aof_rewrite_in_progress") or told.get("aof_rewrite_scheduled"):
                return False
            run, well = str(told.get("run_id", "")), told.get("aof_last_bgrewrite_status") == "ok"
            # An expired key would be written, too: it is there until it is looked at, or the server comes across it.
            async for _ in self.client.scan_iter(match=keys.sample("*", "*"), count=1000):
                pass
        except ResponseError as error:
            refused = error
        if await self._run("disk", keys.DISK, since, at, run, int(well)) != "ask":
            return False
        if refused is not None:
            raise refused
        try:
            await cast(Any, self.client.bgrewriteaof())
        except ResponseError as error:
            if not any(words in str(error).lower() for words in ("in progress", "scheduled")):
                raise
            # Somebody else's began meanwhile, perhaps before the keys were looked at: this one is still due.
            await cast(Any, self.client.hset(keys.DISK, "since", since))
            return False
        await cast(Any, self.client.hset(keys.DISK, "asked", run))
        return True

    @property
    def _expiry_ms(self) -> int:
        return int(self.settings.shadow_expiry_s * 1000)
