"""The loop without engines and without Redis: what is told while a turn of it takes long, or cannot be made."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from redis.exceptions import ConnectionError as RedisConnectionError

from app.contracts.deployment import (
    Deployment,
    DeploymentEvent,
    DeploymentState,
    DriftState,
    ShadowSample,
    ShadowStatus,
)
from app.contracts.errors import ErrorCode, HemostatError
from app.deployments.store import DeploymentStore
from app.settings import Settings
from tests.unit.workers.calibration.online.making import NOW, ONE, TWO, deployment, scored
from workers.calibration.online import loop as loops
from workers.calibration.online.compute import GpuFailed
from workers.calibration.online.loop import ShadowLoop
from workers.calibration.online.rescore import Rescorer
from workers.engine.errors import translate
from workers.telemetry_shadow import ShadowTelemetry


class Store:
    """One deployment. `away`: as where Redis is."""

    def __init__(self) -> None:
        self.away = False
        self.told: list[ShadowStatus] = []

    def _answer(self) -> None:
        if self.away:
            raise RedisConnectionError

    async def get(self, name_or_id: str) -> Deployment:
        self._answer()
        return deployment()

    async def event(self, id_: str, event: DeploymentEvent) -> None:
        self._answer()

    async def pop_samples(self, id_: str, most: int, *, block_s: float) -> list[ShadowSample]:
        return [ShadowSample(id="one", prompt=(1,), output=(2,), version="identity", at=NOW)]

    async def set_shadow(self, id_: str, status: ShadowStatus) -> None:
        self._answer()
        self.told.append(status)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(loops, "POLL_S", 0.02)
    return Store()


def loop_of(tmp_path: Path, store: Store) -> ShadowLoop:
    return ShadowLoop(Settings(home=tmp_path), cast(DeploymentStore, store), deployment(), ShadowTelemetry("demo"))


@asynccontextmanager
async def running(tmp_path: Path, store: Store, release: threading.Event) -> AsyncIterator[ShadowLoop]:
    """A loop whose engines never come up, nor fail, before `release`; what was scored lately is within threshold."""

    def opened(*_: object, **__: object) -> None:
        release.wait(60)
        raise OSError

    made = loop_of(tmp_path, store)
    made._opened = opened  # type: ignore[assignment, method-assign]
    for _ in range(30):
        made.book.observe(scored(0.05), made.book.state.silence.since)
    working = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        made.stop()
        release.set()
        await asyncio.wait_for(working, 60)


def fall_silent(loop: ShadowLoop) -> None:
    """As if the last scored request were of long ago."""
    silence = loop.book.state.silence
    past = silence.model_copy(update={"since": silence.since - 10 * loop.settings.shadow_stale_s})
    loop.book.state = loop.book.state.model_copy(update={"silence": past})


async def until(loop: ShadowLoop, state: DriftState) -> None:
    async with asyncio.timeout(60):
        while loop.telemetry.value("drift_state", state=state.value) != 1.0:  # noqa: ASYNC110 - as a scrape looks
            await asyncio.sleep(0.01)


async def test_silence_is_told_while_the_engines_do_not_answer(tmp_path: Path, store: Store) -> None:
    async with running(tmp_path, store, threading.Event()) as loop:
        await until(loop, DriftState.OK)  # what the last process knew is told before the models are loaded
        assert loop.telemetry.value("drift_e_value_needed") == 400
        fall_silent(loop)
        await until(loop, DriftState.STALE)
        async with asyncio.timeout(60):
            while not store.told or store.told[-1].drift is not DriftState.STALE:  # noqa: ASYNC110 - another task tells
                await asyncio.sleep(0.01)


async def test_silence_is_told_while_redis_is_away(tmp_path: Path, store: Store) -> None:
    store.away = True
    async with running(tmp_path, store, threading.Event()) as loop:
        await until(loop, DriftState.OK)
        fall_silent(loop)
        await until(loop, DriftState.STALE)
        assert not loop.redis_up


def rescorer(*, takes: bool) -> Rescorer:
    """It takes every version, or refuses each: fitted for other weights."""

    def to_be_tried(version: str) -> None:
        if not takes:
            raise HemostatError(ErrorCode.PROFILE_MISMATCH, f"{version} was fitted for other weights")

    return cast(Rescorer, SimpleNamespace(to_be_tried=to_be_tried))


async def test_a_trial_that_cannot_begin_is_counted_as_refused(tmp_path: Path, store: Store) -> None:
    free = threading.Event()
    free.set()
    async with running(tmp_path, store, free) as loop:

        def refused() -> float | None:
            return loop.telemetry.value("shadow_trials", outcome="refused")

        assert not await loop._try(rescorer(takes=False), ONE, NOW)
        assert refused() == 1
        assert await loop._try(rescorer(takes=True), ONE, NOW)
        assert refused() == 1
        assert not await loop._try(rescorer(takes=True), TWO, NOW)  # another is on trial
        assert refused() == 2


def failing(cause: Exception) -> Callable[..., Any]:
    """What an engine does that a fault of torch stops."""

    def fail(*_: object, **__: object) -> None:
        raise translate(cause, "while scoring") from cause

    return fail


ILLEGAL = torch.AcceleratorError("an illegal memory access was encountered")
OTHER = RuntimeError("a shape does not fit")


async def test_after_a_gpu_failed_the_process_ends_and_does_not_stay_degraded(tmp_path: Path, store: Store) -> None:
    loop = loop_of(tmp_path, store)
    loop._opened = failing(ILLEGAL)  # type: ignore[method-assign]
    async with asyncio.timeout(60):
        with pytest.raises(GpuFailed):
            await loop.run()
    assert loop.said[0] is DeploymentState.STARTING
    loop.stop()


@pytest.mark.parametrize(("cause", "ends"), [(ILLEGAL, True), (OTHER, False)])
async def test_scoring_or_a_refit_that_meets_a_failed_gpu_ends_the_process_and_another_fault_does_not(
    tmp_path: Path, store: Store, cause: Exception, ends: bool
) -> None:
    loop = loop_of(tmp_path, store)
    models = SimpleNamespace(replaced=lambda: False, close=lambda: None)
    faulty = cast(Rescorer, SimpleNamespace(models=models, score=failing(cause)))
    refit = asyncio.create_task(loop.compute.plain(failing(cause)))
    await asyncio.wait({refit})
    for fails in (loop._batch(faulty), loop._refitted(refit)):
        with pytest.raises(GpuFailed) if ends else nullcontext():
            await fails
    assert (loop.said[0] is DeploymentState.DEGRADED) is not ends
    loop.stop()
