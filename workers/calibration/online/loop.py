"""The on-line loop of one deployment: samples come in, are scored, and lead to what the books say.

Scoring runs in one thread, a refit in another, both beside the event loop. Whatever is away is waited for: Redis, an
engine that fails (with a growing pause), a checkpoint that cannot be read. What was learnt until then stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from pathlib import Path
from typing import Final

from redis.exceptions import RedisError

from app.contracts.deployment import (
    Deployment,
    DeploymentEvent,
    DeploymentEventType,
    DeploymentState,
    ShadowSample,
    Version,
)
from app.contracts.errors import ErrorCode, HemostatError
from app.deployments import hidden
from app.deployments.profiles import is_version
from app.deployments.store import DeploymentStore
from app.settings import Settings
from workers.calibration.online import state
from workers.calibration.online.carry import carry_out
from workers.calibration.online.compute import Compute, GpuFailed, Stopped
from workers.calibration.online.controller import Scalar
from workers.calibration.online.export import export_batch, export_monitor
from workers.calibration.online.memory import RecentRows
from workers.calibration.online.models import Models
from workers.calibration.online.monitor import Monitor
from workers.calibration.online.refit import Refitter
from workers.calibration.online.rescore import Batch, Rescorer
from workers.calibration.online.threshold import Expected, expected
from workers.calibration.profiles import ProfileStore
from workers.process.failures import safe_traceback
from workers.process.tasks import cancel
from workers.telemetry_shadow import ShadowTelemetry

logger = logging.getLogger(__name__)

TRIALS: Final = "trials"  # a file named after a version asks for its trial
POLL_S: Final = 1.0
SAVE_S: Final = 2.0
SWEEP_S: Final = 30.0
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
_AWAY = (RedisError, ConnectionError, TimeoutError)


class Gone(Exception):  # noqa: N818 - not an error
    """The deployment was deleted."""


class ShadowLoop:
    """Works until told to stop. `said` is the state and reason that the process' lease shows."""

    def __init__(
        self, settings: Settings, store: DeploymentStore, deployment: Deployment, telemetry: ShadowTelemetry
    ) -> None:
        self.settings = settings
        self.store = store
        self.id = deployment.id
        self.folder: Path = settings.home / "deployments" / deployment.id
        self.telemetry = telemetry
        self.profiles = ProfileStore(settings)
        self.compute = Compute("shadow-score")
        self.said: tuple[DeploymentState, str] = (DeploymentState.STARTING, "the models are loaded")
        self.redis_up = True
        self.rescorer: Rescorer | None = None
        self.recent = RecentRows(settings.shadow_refit_tokens)
        self.refitter = Refitter(settings, self.compute, self.profiles)
        self._deployment = deployment
        self._stop = asyncio.Event()
        self._pause_s = FIRST_PAUSE_S
        self._opens_at = 0.0
        self._saved: tuple[float, state.ShadowState | None] = (0.0, None)
        self._swept = 0.0
        self._refit: asyncio.Task[Version | None] | None = None
        self._waiting: list[DeploymentEvent] = []
        (self.folder / TRIALS).mkdir(parents=True, exist_ok=True)
        found, problem = state.load(self.folder, deployment.id)
        if problem:
            self._note(DeploymentEventType.CHANGED, f"{problem}: the tests begin again")
        weights = found.weights if found else None
        self.book = Monitor(settings, deployment, self._expected(deployment, weights), found, time.time())

    def stop(self) -> None:
        """Ends `run` within seconds."""
        self._stop.set()
        self.compute.stop()
        self.refitter.stop()

    async def run(self) -> None:
        """Works until `stop`. Raises `Gone` if the deployment was deleted, `GpuFailed` if this process cannot go on."""
        telling = asyncio.create_task(self._telling(), name="telling")
        try:
            while not self._stop.is_set():
                if telling.done():
                    await telling
                try:
                    await self._turn()
                    self._redis(up=True)
                except Stopped:
                    break
                except _AWAY as error:
                    self._redis(up=False, error=error)
                    await self._pause(POLL_S)
                except OSError as error:
                    logger.warning("a file cannot be read or written: %s", error.strerror)
                    await self._pause(POLL_S)
        finally:
            await cancel(telling)
            await self._end_refit()
            self._save(now=True)

    async def _turn(self) -> None:
        """One round: at most a second of waiting, or one batch."""
        now = time.time()
        await self._look(now)
        if self.rescorer is None and time.monotonic() >= self._opens_at:
            await self._open()
        if self.rescorer is None:
            await self._pause(POLL_S)
        else:
            await self._batch(self.rescorer)
        await self._carry()
        await self._trials(time.time())
        await self._refits()
        self._tend(time.time())

    # --- the record

    async def _look(self, now: float) -> None:
        try:
            deployment = await self.store.get(self.id)
        except HemostatError as error:
            if error.code is ErrorCode.DEPLOYMENT_NOT_FOUND:
                raise Gone from None
            raise
        self._meet(deployment, now)

    def _meet(self, deployment: Deployment, now: float) -> None:
        self._deployment = deployment
        before = self.book.state.loop.active
        for told in self.book.meet(deployment, self._expected(deployment, self.book.state.weights), now):
            self._note(DeploymentEventType.CHANGED, told)
        if self._refit is not None and self.book.state.loop.active != before:
            self.refitter.cancel()

    def _expected(self, deployment: Deployment, weights: tuple[str, str] | None) -> Expected:
        return expected(self.profiles, deployment.active_version, weights=weights or ("", ""))

    # --- the models

    async def _open(self) -> None:
        if self.said[0] is not DeploymentState.DEGRADED:
            self._say(DeploymentState.STARTING, "the models are loaded")
        try:
            self.rescorer = await self.compute.run(self._opened, self._deployment)
        except HemostatError as error:
            self._failed(f"{error.detail}; {error.hint}" if error.hint else error.detail)
            return
        except (Stopped, GpuFailed):
            raise
        except Exception as error:  # whatever a library does, the process goes on and says so
            logger.error("the models cannot be loaded\n%s", safe_traceback(error))  # noqa: TRY400 - without values
            self._failed(f"the models cannot be loaded: {type(error).__name__}")
            return
        self._pause_s = FIRST_PAUSE_S
        self.telemetry.set("shadow_engine_up", 1)
        sides = self.rescorer.models.sides
        if self.book.weights((sides.reference.weights, sides.candidate.weights)):
            self.recent.clear()
            self._note(DeploymentEventType.CHANGED, "other weights were put in place: the window begins again")
        self.refitter.models(self.rescorer.models)
        self._say(DeploymentState.READY, "" if self.rescorer.models.apart else "both models share one engine")

    def _opened(self, deployment: Deployment, *, check_cancelled: object = None) -> Rescorer:
        del check_cancelled
        check = self.compute.check
        models = Models(deployment, self.settings, share=self.settings.share_shadow, check_cancelled=check)
        try:
            made = Rescorer(models, self.profiles, self.folder, expiry_s=self.settings.shadow_expiry_s)
            made.scorer.warm_up()
        except BaseException:
            models.close()
            raise
        return made

    def _failed(self, reason: str) -> None:
        self._say(DeploymentState.DEGRADED, reason)
        self.telemetry.set("shadow_engine_up", 0)
        self._opens_at = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    async def _close(self) -> None:
        gone, self.rescorer = self.rescorer, None
        if gone is not None:
            await self.compute.plain(gone.models.close)

    # --- the samples

    async def _batch(self, rescorer: Rescorer) -> None:
        if rescorer.models.replaced():
            self._say(DeploymentState.STARTING, "other weights were put in place")
            await self._close()
            return
        samples = await self.store.pop_samples(self.id, self.settings.shadow_batch, block_s=POLL_S)
        if not samples:
            return
        try:
            batch = await self.compute.run(rescorer.score, samples, self.book.versions())
        except HemostatError as error:
            await self._lost(samples, error.detail)
            return
        except (Stopped, GpuFailed):
            raise
        except Exception as error:  # as above
            logger.error("a batch could not be scored\n%s", safe_traceback(error))  # noqa: TRY400 - without values
            await self._lost(samples, f"scoring failed: {type(error).__name__}")
            return
        self._scored(batch, time.time())

    async def _lost(self, samples: list[ShadowSample], reason: str) -> None:
        self.telemetry.add("shadow_skipped", len(samples), reason="failed")
        self._failed(reason)
        await self._close()

    def _scored(self, batch: Batch, now: float) -> None:
        for scored in batch.scored:
            self.book.observe(scored, now)
            self.recent.add(scored.id, scored.rows)
        export_batch(self.telemetry, batch, now)
        for version, problem in batch.failed_versions.items():
            logger.warning("%s cannot be compared: %s", version, problem)

    # --- what follows

    async def _carry(self) -> None:
        for todo in self.book.state.todo:
            self._save(now=True)
            changed = await carry_out(self.book, todo, self.store, time.time())
            if changed is not None:
                self._meet(changed, time.time())
                break
        while self._waiting:
            await self.store.event(self.id, self._waiting[0])
            self._waiting.pop(0)

    async def _trials(self, now: float) -> None:
        """Versions that somebody asks to be tried: empty files below `trials/`."""
        with contextlib.suppress(FileNotFoundError):
            for file in sorted((self.folder / TRIALS).iterdir()):
                if not is_version(file.name):
                    file.unlink(missing_ok=True)
                elif self.book.state.loop.candidate is None and self.rescorer is not None:
                    file.unlink(missing_ok=True)
                    await self._try(self.rescorer, file.name, now)

    async def _try(self, rescorer: Rescorer, version: Version, now: float) -> bool:
        try:
            await self.compute.plain(rescorer.to_be_tried, version)
        except HemostatError as error:
            self.telemetry.add("shadow_trials", outcome="refused")
            self._note(DeploymentEventType.REFUSED, f"it cannot be tried: {error.detail}", version)
            return False
        permission = self.book.try_version(version, now)
        if permission.allowed:
            self._note(DeploymentEventType.TRIAL, "it is tried in shadow against the active version", version)
            self._save(now=True)
        else:
            self.telemetry.add("shadow_trials", outcome="refused")
            self._note(DeploymentEventType.REFUSED, f"it cannot be tried: {permission.reason}", version)
        return permission.allowed

    async def _refits(self) -> None:
        if self._refit is not None:
            if self._refit.done():
                await self._refitted(self._refit)
            return
        reason = self.book.refit_wanted()
        if reason is None or self.rescorer is None or not self.recent.tokens:
            return
        seed = self.book.refit_began()
        evidence: dict[str, Scalar] = {"seed": seed, "recent_tokens": self.recent.tokens}
        self._note(DeploymentEventType.FIT_STARTED, reason, evidence=evidence)
        self._refit = asyncio.create_task(
            self.refitter.refit(self._deployment, self.recent.all(), seed=seed, reason=reason), name="refit"
        )

    async def _refitted(self, task: asyncio.Task[Version | None]) -> None:
        self._refit = None
        try:
            version = task.result()
        except (Stopped, asyncio.CancelledError):
            self.telemetry.add("shadow_refits", outcome="cancelled")
            return
        except HemostatError as error:
            self.telemetry.add("shadow_refits", outcome="failed")
            self._note(DeploymentEventType.REFUSED, f"a refit failed: {error.detail}")
            return
        except GpuFailed:
            raise
        except Exception as error:  # as above
            logger.error("a refit failed\n%s", safe_traceback(error))  # noqa: TRY400 - without values
            self.telemetry.add("shadow_refits", outcome="failed")
            self._note(DeploymentEventType.REFUSED, f"a refit failed: {type(error).__name__}")
            return
        if version is None:
            self._note(DeploymentEventType.REFUSED, "a refit found nothing that helps")
        tried = (
            version is not None and self.rescorer is not None and await self._try(self.rescorer, version, time.time())
        )
        self.telemetry.add("shadow_refits", outcome="tried" if tried else "refused")

    async def _end_refit(self) -> None:
        task, self._refit = self._refit, None
        if task is not None:
            self.refitter.cancel()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Stopped, Exception):
                await asyncio.wait_for(task, 1.0)

    # --- what is reported

    async def _telling(self) -> None:
        """Says what holds, also while a turn takes long or cannot be made: engines that load or hang, Redis away.

        What was found last must not look like news then.
        """
        while True:
            now = time.time()
            if self.book.tick(now):
                self._note(DeploymentEventType.STALE, "no request was scored for too long")
            export_monitor(self.telemetry, self.book)
            degraded = self.said[1] if self.said[0] is DeploymentState.DEGRADED else ""
            with contextlib.suppress(*_AWAY, OSError, HemostatError):  # the turn meets them, too, and says so
                await self.store.set_shadow(self.id, self.book.status(now, degraded))
            await asyncio.sleep(POLL_S)

    def _tend(self, now: float) -> None:
        if now - self._swept > SWEEP_S:
            self._swept = now
            hidden.sweep(self.folder, self.settings.shadow_expiry_s)
        self._save()

    def _note(
        self,
        kind: DeploymentEventType,
        reason: str,
        version: Version | None = None,
        evidence: dict[str, Scalar] | None = None,
    ) -> None:
        """An event that is reported as soon as Redis is there."""
        logger.info("%s: %s", kind.value, reason)
        self._waiting.append(
            DeploymentEvent(type=kind, at=0.0, reason=reason, version=version, evidence=evidence or {})
        )

    def _say(self, now: DeploymentState, reason: str) -> None:
        if (now, reason) != self.said:
            logger.info("%s%s", now.value, f": {reason}" if reason else "")
        self.said = (now, reason)

    def _redis(self, *, up: bool, error: Exception | None = None) -> None:
        if up != self.redis_up:
            logger.warning("Redis is back" if up else f"Redis is away ({type(error).__name__}); waiting")
        self.redis_up = up
        self.telemetry.set("shadow_redis_up", float(up))

    def _save(self, *, now: bool = False) -> None:
        at, saved = self._saved
        if saved is self.book.state or (not now and time.monotonic() - at < SAVE_S):
            return
        try:
            state.save(self.folder, self.book.state)
        except OSError as error:
            logger.warning("the state cannot be saved: %s", error.strerror)
            return
        self._saved = (time.monotonic(), self.book.state)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)
