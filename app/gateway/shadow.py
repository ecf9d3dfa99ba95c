"""Which requests are scored again, and their way into the queue: token ids only, after the answer, never in its way."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from redis.exceptions import RedisError

from app.contracts.deployment import Deployment, ShadowSample
from app.contracts.errors import HemostatError
from app.gateway.rewrite import Seen
from app.telemetry.gateway import GatewayMetrics

logger = logging.getLogger(__name__)

PUSH_TIMEOUT_S: Final = 3.0
MAX_PUSHES: Final = 256  # under way at one time
MAX_SAMPLE_TOKENS: Final = 32_768  # prompt and answer: a quarter of a megabyte in Redis
_WINDOW_S: Final = 10.0  # of the budget, that may be spent at once


class Budget:
    """Generated tokens per second that may be scored again. A sample is charged when its length is known. So the budget
    may run into debt by one sample per request in flight, which is paid back before the next draw."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tokens: float | None = None
        self._at = clock()

    def open(self, rate: float) -> bool:
        """Whether a sample may be drawn at this rate, in tokens per second."""
        now = self._clock()
        most = rate * _WINDOW_S
        filled = most if self._tokens is None else self._tokens + (now - self._at) * rate
        self._tokens, self._at = min(most, filled), now
        return self._tokens > 0

    def charge(self, tokens: int) -> None:
        """Takes the tokens of a sample."""
        self._tokens = (self._tokens or 0.0) - tokens


class Queue(Protocol):
    """What is used of the deployment store."""

    async def push_sample(self, deployment_id: str, sample: ShadowSample, /) -> bool:
        """False if the queue is full."""


class Sampler:
    """Draws requests and queues them. Every drawn request is counted: sampled, or dropped with the reason."""

    def __init__(self, queue: Queue, metrics: GatewayMetrics, *, draw: Callable[[], float] = random.random) -> None:
        self._queue = queue
        self._metrics = metrics
        self._draw = draw
        self._budgets: dict[str, Budget] = {}
        self._pushes: set[asyncio.Task[None]] = set()

    def wants(self, deployment: Deployment) -> bool:
        """Whether this request is drawn. It must then end in `done` or `drop`."""
        if deployment.shadow_rate <= 0 or self._draw() >= deployment.shadow_rate:
            return False
        if self._budget(deployment).open(deployment.shadow_tokens_per_second):
            return True
        self.drop(deployment, "budget")
        return False

    def forget(self, deployment_id: str) -> None:
        """The deployment is no more."""
        self._budgets.pop(deployment_id, None)

    def drop(self, deployment: Deployment, reason: str) -> None:
        """The request will not be scored again."""
        self._metrics.dropped.labels(deployment.name, reason).inc()

    def done(self, deployment: Deployment, request_id: str, version: str, body: dict[str, Any], seen: Seen) -> None:
        """The answer is complete: queues it behind the caller's back."""
        if not seen.prompt_ids or not seen.output_ids:
            self.drop(deployment, "failed")
            return
        if len(seen.prompt_ids) + len(seen.output_ids) > MAX_SAMPLE_TOKENS:
            self.drop(deployment, "too_long")
            return
        if len(self._pushes) >= MAX_PUSHES:
            self.drop(deployment, "queue_full")
            return
        self._budget(deployment).charge(len(seen.output_ids))
        sample = ShadowSample(
            id=request_id,
            prompt=tuple(seen.prompt_ids),
            output=tuple(seen.output_ids),
            version=version,
            temperature=_number(body, "temperature", 1.0),
            top_p=_number(body, "top_p", 1.0),
            top_k=max(0, int(_number(body, "top_k", 0))),
            min_p=_number(body, "min_p", 0.0),
            hidden=f"hidden/{request_id}.bin",
            at=time.time(),
        )
        self._start(self._push(deployment, sample))

    async def close(self) -> None:
        """Waits for what is being queued."""
        await asyncio.gather(*self._pushes, return_exceptions=True)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="gateway-sample")
        self._pushes.add(task)
        task.add_done_callback(self._pushes.discard)

    async def _push(self, deployment: Deployment, sample: ShadowSample) -> None:
        try:
            async with asyncio.timeout(PUSH_TIMEOUT_S):
                queued = await self._queue.push_sample(deployment.id, sample)
        except (RedisError, OSError, TimeoutError, HemostatError) as error:
            logger.info("a sample of %s was dropped: %s", deployment.name, type(error).__name__)
            self.drop(deployment, "unavailable")
            return
        if queued:
            self._metrics.sampled.labels(deployment.name).inc()
        else:
            self.drop(deployment, "queue_full")

    def _budget(self, deployment: Deployment) -> Budget:
        return self._budgets.setdefault(deployment.id, Budget())


def eligible(route: str, body: dict[str, Any]) -> bool:
    """Whether the request is one that can be scored again: one sequence of one prompt, sampled token by token."""
    if route not in {"chat", "completions"} or body.get("use_beam_search") or body.get("echo"):
        return False
    prompt = body.get("prompt")
    one = not isinstance(prompt, list) or len(prompt) == 1 or (len(prompt) > 0 and isinstance(prompt[0], int))
    return one and (body.get("n") or 1) == 1 and (body.get("best_of") or 1) == 1


def _number(body: dict[str, Any], name: str, default: float) -> float:
    value = body.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else default
