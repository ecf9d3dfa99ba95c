"""Which workers live: each says so every few seconds, and is forgotten when it stops."""

import time
from typing import Annotated, Final, cast

from pydantic import ConfigDict, Field
from redis.asyncio import Redis

from app.contracts.base import Contract
from app.jobs import keys

HEARTBEAT_S: Final = 2.0
EXPIRY_S: Final = 10
FORGET_S: Final = 600  # an index entry without its heartbeat

Short = Annotated[str, Field(max_length=200)]


class WorkerInfo(Contract):
    """What a worker says of itself. Shown by /readyz."""

    model_config = ConfigDict(extra="ignore")  # a worker of a later version may say more

    id: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$")]
    host: Short = ""
    pid: int = 0
    version: Short = ""
    engine: Short = ""
    device: Short = ""
    card: Short = Field(default="", description="its GPU, as the driver calls it")
    devices: tuple[Short, ...] = Field(default=(), description="its GPUs by their numbers in nvidia-smi, or `cpu`")
    starting: bool = Field(default=False, description="whether it still asks driver and torch for its GPU")
    job: str | None = Field(default=None, description="the job that it runs")
    helping: str | None = Field(default=None, description="the job of another worker that it measures points of")
    draining: bool = False
    metrics_url: Short = ""
    scoring_rate: float | None = Field(
        default=None, description="parameters times tokens per second of its last pass over a text"
    )
    started_at: float = 0.0
    seen_at: float = 0.0


async def announce(client: "Redis", info: WorkerInfo, *, expiry_s: int = EXPIRY_S) -> None:
    """A heartbeat: call it every `HEARTBEAT_S`, and at once when `job`, `helping` or `draining` changes."""
    now = time.time()
    pipeline = client.pipeline(transaction=True)
    pipeline.set(keys.worker(info.id), info.model_copy(update={"seen_at": now}).model_dump_json(), ex=expiry_s)
    pipeline.zadd(keys.WORKERS, {info.id: now})
    await pipeline.execute()


async def leave(client: "Redis", worker_id: str) -> None:
    """The worker goes, of its own will."""
    pipeline = client.pipeline(transaction=True)
    pipeline.delete(keys.worker(worker_id))
    pipeline.zrem(keys.WORKERS, worker_id)
    await pipeline.execute()


async def living(client: "Redis") -> list[WorkerInfo]:
    """The workers whose heartbeat has not expired, by id."""
    ids = sorted(cast("list[str]", await client.zrange(keys.WORKERS, 0, -1)))
    if not ids:
        return []
    pipeline = client.pipeline(transaction=False)
    for worker_id in ids:
        pipeline.get(keys.worker(worker_id))
        pipeline.ttl(keys.worker(worker_id))
    answers = await pipeline.execute()
    # A heartbeat that would hold for so long is none: Redis's clock went back.
    texts = [text if left <= FORGET_S else None for text, left in zip(answers[::2], answers[1::2], strict=True)]
    silent = [worker_id for worker_id, text in zip(ids, texts, strict=True) if text is None]
    if silent:
        # Also by age: it may have beaten since. By age alone, one whose clock is slow would go while it beats.
        old = await client.zrangebyscore(keys.WORKERS, 0, time.time() - FORGET_S)
        if gone := set(silent).intersection(old):
            await client.zrem(keys.WORKERS, *gone)
    return [WorkerInfo.model_validate_json(text) for text in texts if text is not None]
