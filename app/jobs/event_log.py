"""The events of a job: numbered from 1 without gaps, of which the newest are kept."""

import json
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from app.jobs import keys

MESSAGE_PAGE: Final = 50  # events read at once in search of a line for people
MESSAGE_PAGES: Final = 10  # a line that is further back than these says nothing about what the job does now


@dataclass(frozen=True)
class StoredEvent:
    """An event as it is kept: its number within the job, from 1 without gaps, and its JSON (`app.contracts.event`)."""

    number: int
    data: str


def _message(data: str) -> str | None:
    event = json.loads(data)
    return str(event["message"]) if event["type"] == "log" else None


def _number(entry_id: object) -> int:
    return int(str(entry_id).partition("-")[0])


class EventLog:
    """Reads the events over one Redis client."""

    def __init__(self, client: Redis) -> None:
        self.client = client

    async def events(
        self, job_id: str, after: int, *, block_s: float | None = None, count: int = 200
    ) -> list[StoredEvent]:
        """Events whose number is greater than `after`, oldest first; waits up to `block_s` where there is none yet."""
        answer: Any = await self.client.xread(
            {keys.events(job_id): f"{after}-0"},
            count=count,
            block=None if block_s is None else max(1, int(block_s * 1000)),
        )
        if answer:
            return [StoredEvent(_number(entry_id), fields["data"]) for entry_id, fields in answer[0][1]]
        return [event for event in await self._tail(job_id) if event.number > after][:count]

    async def _tail(self, job_id: str) -> list[StoredEvent]:
        """What is kept of the events of a job that ended a while ago, oldest first."""
        pipeline = self.client.pipeline(transaction=True)
        pipeline.get(keys.tail(job_id))
        pipeline.hget(keys.job(job_id), "events")
        text, newest = await pipeline.execute()
        kept = text.split("\n") if text else []
        return [StoredEvent(int(newest) - len(kept) + index, data) for index, data in enumerate(kept, start=1)]

    async def latest_message(self, job_id: str) -> str | None:
        """The newest line for people among the last `MESSAGE_PAGE · MESSAGE_PAGES` events that are still kept."""
        before = "+"
        for _ in range(MESSAGE_PAGES):
            entries: Any = await self.client.xrevrange(keys.events(job_id), max=before, count=MESSAGE_PAGE)
            for _, fields in entries:
                if message := _message(fields["data"]):
                    return message
            if len(entries) < MESSAGE_PAGE:
                break
            before = f"({entries[-1][0]}"
        return next(filter(None, (_message(event.data) for event in reversed(await self._tail(job_id)))), None)
