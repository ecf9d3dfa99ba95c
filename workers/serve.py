"""One replica of a deployment: `python -m workers.serve --deployment NAME_OR_ID --replica N`.

It makes the model by its recipe, or takes it from the checkpoint store. It runs the OpenAI server of vLLM as a child
with calibration in its engine process, and keeps a lease in Redis. It computes nothing itself, so its lease does not
depend on how busy the model is.

SIGTERM or SIGINT drains: no further request is sent here, running ones get `drain_s`; a second signal ends at once.
Exit status 0 after that, or when the deployment is deleted; 1 when it cannot start or its server ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import re
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from workers.engine import environment

if __name__ == "__main__":
    environment.start_with_engine_environment()  # before torch is imported

from redis.exceptions import RedisError

from app.address import listening_on, loopback
from app.contracts.blocks import ADAPTER
from app.contracts.deployment import IDENTITY, Deployment, DeploymentState, Replica
from app.contracts.errors import ErrorCode, HemostatError
from app.deployments.devices import seen
from app.deployments.secret import headers_for, new_secret
from app.deployments.store import DeploymentStore
from app.files import write_atomically
from app.jobs.connection import connect
from app.models.checkpoint import CheckpointInfo, inspect
from app.models.packing import check_served
from app.models.registry import load_registry, settings_of
from app.models.steps.others import other_of
from app.models.steps.repair import packed_base
from app.secrets import hide_memory
from app.settings import Settings
from workers.engine import repair
from workers.engine.device import pick_device, total_bytes
from workers.engine.finite import check_finite
from workers.engine.pool import resolve_dtype
from workers.engine.serving.arguments import (
    ServerPlan,
    cache_bytes,
    check_room,
    command,
    context_limit,
    gpu_cache_bytes,
    has_room_for_single_rows,
    server_arguments,
    server_environment,
    split_of,
)
from workers.engine.serving.child import HeldPort, ServerEndedError, ServerProcess, read_port
from workers.engine.serving.config import LOOPBACK, ServingConfig
from workers.engine.serving.steps import StepWatch, limit_s
from workers.measuring.calibration_text import loader_without_sampler
from workers.process.logs import configure_logging
from workers.process.tasks import cancel
from workers.surgery.modified import Modified
from workers.surgery.recipe import apply
from workers.surgery.store import CheckpointStore

logger = logging.getLogger("workers.serve")

POLL_S: Final = 1.0
QUIET_POLL_S: Final = 0.2


class StoppedError(Exception):
    """It was asked to go before it was ready."""


@dataclass(frozen=True)
class Prepared:
    """What is served: `info` is `modified`, which is kept from eviction, or the packed weights `base` with its
    repair."""

    modified: Modified
    base: Modified | None
    info: CheckpointInfo
    tokenizer: Path
    dtype: str
    device: str


class Serving:
    """One run of this process."""

    def __init__(self, settings: Settings, store: DeploymentStore, deployment: Deployment, number: int) -> None:
        self._settings = settings
        self._store = store
        self._deployment = deployment
        self._folder = settings.home / "deployments" / deployment.id / f"replica-{number}"
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._thread_stop = threading.Event()
        self._changed = asyncio.Event()
        self._wanted: tuple[str, ...] | None = None
        self._secret = "" if settings.advertise_host is None else new_secret()
        self._port: HeldPort | None = None
        host = socket.gethostname()
        self._replica = Replica(
            id=f"serve-{number}-{_safe(host)}-{os.getpid()}-{secrets.token_hex(3)}",
            reason="the model is looked up",
            secret=self._secret,
            versions=(IDENTITY,),
            host=host[:200],
            loopback=loopback(),
            device=seen(),
            pid=os.getpid(),
            started_at=time.time(),
        )

    def stop(self) -> None:
        """A signal: drain, the second one at once."""
        (self._stop_now if self._stop.is_set() else self._stop).set()
        self._thread_stop.set()

    async def run(self) -> int:
        """To the end. The exit status."""
        renewing = asyncio.create_task(self._renew(), name="lease")
        try:
            return await self._run()
        except StoppedError:
            return 0
        except HemostatError as error:
            self._fail(f"{error.detail}; {error.hint}" if error.hint else error.detail)
            return 1
        except ServerEndedError as error:
            self._fail(str(error))
            return 1
        finally:
            await cancel(renewing)
            await self._say_last()

    async def _run(self) -> int:
        prepared = await self._prepare()
        try:
            server = await self._start(prepared)
            try:
                ready = asyncio.create_task(self._until_ready(server), name="ready")
                if await self._first(ready):
                    raise StoppedError
                await ready
                return await self._serve(server)
            finally:
                await server.end()
        finally:
            self._release_port()
            prepared.modified.release()
            if prepared.base is not None:
                prepared.base.release()

    # --- before it serves

    async def _prepare(self) -> Prepared:
        working = asyncio.create_task(asyncio.to_thread(self._make, asyncio.get_running_loop()), name="prepare")
        await self._first(working)  # told to stop, the thread raises
        return await working

    def _make(self, loop: asyncio.AbstractEventLoop) -> Prepared:
        def check_stopped() -> None:
            if self._thread_stop.is_set():
                raise StoppedError

        def progress(_: str, done: int, total: int) -> None:
            loop.call_soon_threadsafe(self._say, DeploymentState.STARTING, f"the model is made: {done} of {total}")

        settings, model = self._settings, self._deployment.model
        registry = load_registry(settings.models_file)
        entry = registry.resolve(model.model, pointer="/model/model")
        origin = inspect(entry.checkpoint_path(pointer="/model/model"), pointer="/model/model")
        device = pick_device(settings)
        tokenizer = entry.tokenizer_path(pointer="/model/model")
        make = partial(
            apply,
            origin,
            device=device,
            store=CheckpointStore(settings.home / "checkpoints", settings.checkpoint_budget_bytes),
            reference=self._reference(origin),
            calibration=loader_without_sampler(settings, tokenizer),
            others=lambda step: other_of(step, registry, settings, pointer="/model/recipe"),
            progress=progress,
            check_cancelled=check_stopped,
        )
        modified = make(model.recipe)
        base: Modified | None = None
        path = modified.path
        if self._deployment.repair is not None:
            base = make(packed_base(model.recipe, "/repair"))
            path = self._folder / "model"
            repair.attach(base.path, modified.path / ADAPTER, path)
        info = inspect(path)
        check_finite(info, check_stopped)
        return Prepared(modified, base, info, tokenizer, resolve_dtype(entry.dtype), device)

    def _reference(self, origin: CheckpointInfo) -> CheckpointInfo | None:
        """The unmodified model where it is another checkpoint than the served one's origin."""
        entry = load_registry(self._settings.models_file).resolve(
            self._deployment.reference.model, pointer="/reference/model"
        )
        info = inspect(entry.checkpoint_path(pointer="/reference/model"), pointer="/reference/model")
        return None if info.path == origin.path else info

    async def _start(self, prepared: Prepared) -> ServerProcess:
        sizes = settings_of(self._settings, self._deployment.model.model)
        # Of pipeline stages the last alone makes logits, which calibration needs in each process.
        settings, info = sizes.model_copy(update={"pipeline_parallel_size": 1}), prepared.info
        ranks = split_of(settings, prepared.device).ranks
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        door_file = self._folder / "door.port"
        door_file.unlink(missing_ok=True)
        host = listening_on(LOOPBACK, settings.advertise_host)
        self._want(self._deployment)
        length = context_limit(info, self._deployment.max_model_len)
        cache, apart, float32 = 0, False, settings.serving_float32_products
        total = total_bytes(prepared.device)
        if prepared.device == "cuda":
            cache = gpu_cache_bytes(info, settings, dtype=prepared.dtype, max_model_len=length, total=total)
        else:
            cache = cache_bytes(info, settings, dtype=prepared.dtype, max_model_len=length, total=total)
            check_served(info.quantization, self._deployment.model.model)
            check_room(info, dtype=prepared.dtype, kv_cache_bytes=ranks * cache)
            apart = (
                float32
                and ranks == 1
                and has_room_for_single_rows(info, settings, dtype=prepared.dtype, kv_cache_bytes=cache, total=total)
            )
        config = ServingConfig(
            deployment=self._deployment.name,
            architecture=info.architecture,
            fingerprint=prepared.modified.fingerprint,  # profiles are fitted for it, also if it is not merged
            single_rows_apart=apart,
            float32_products=float32,
            profiles=(settings.home / "profiles").resolve(),
            versions_file=(self._folder / "versions.json").resolve(),
            hidden=(self._folder.parent / "hidden").resolve(),
            hidden_expiry_s=settings.shadow_expiry_s,
            door_host=host,
            door_file=door_file.resolve(),
            secret=self._secret,
        )
        config_file = self._folder / "serving.json"
        write_atomically(config_file, config.model_dump_json(indent=1).encode(), mode=0o600)
        self._port = HeldPort(host)  # loading takes minutes, and vLLM binds after its imports
        plan = ServerPlan(
            self._deployment.name,
            info,
            prepared.tokenizer,
            prepared.dtype,
            prepared.device,
            host,
            self._port.number,
            length,
            cache,
            guarded=bool(self._secret),
        )
        self._say(DeploymentState.STARTING, "the server starts")
        return await ServerProcess.start(
            command(server_arguments(plan, settings), os.getpid()),
            server_environment(config_file.resolve(), device=prepared.device, ranks=ranks),
            f"http://{LOOPBACK}:{plan.port}",
            headers_for(self._secret),
        )

    def _release_port(self) -> None:
        if self._port is not None:
            self._port.release()
            self._port = None

    async def _until_ready(self, server: ServerProcess) -> None:
        await server.until_healthy(self._deployment.name)
        self._release_port()
        port = read_port(self._folder / "door.port")
        if port is None:
            raise ServerEndedError("the engine process has opened no door")
        self._door = f"http://{LOOPBACK}:{port}"
        url, door = self._advertised(server.url), self._advertised(self._door)
        self._replica = self._replica.model_copy(
            update={"url": url, "engine_url": door, "metrics_urls": (f"{url}/metrics", f"{door}/metrics")}
        )
        await self._follow(server)

    # --- while it serves

    async def _serve(self, server: ServerProcess) -> int:
        ended = asyncio.create_task(server.until_ended(), name="server")
        following = asyncio.create_task(self._keep_following(server), name="versions")
        told = asyncio.create_task(self._stop.wait(), name="told to go")
        try:
            await asyncio.wait({ended, told, following}, return_when=asyncio.FIRST_COMPLETED)
            if not told.done():
                raise ServerEndedError(ended.result() if ended.done() else await following)
            await cancel(following)  # it would say at its next look that the replica is ready
            await self._drain(server, ended)
        finally:
            await cancel(ended, following, told)
        return 0

    async def _keep_following(self, server: ServerProcess) -> str:
        watch = StepWatch(limit_s())
        while True:
            await asyncio.sleep(POLL_S)
            if await server.unhealthy():
                return "the engine process is dead"
            # vLLM's own metrics tell of a step when it has ended: the first one after idling is not seen in them.
            stuck = watch.look(await server.get_json(f"{self._door}/livez"))
            if stuck is not None:
                return stuck
            try:
                self._deployment = await self._store.get(self._deployment.id)
            except HemostatError as error:
                if error.code is not ErrorCode.DEPLOYMENT_NOT_FOUND:
                    raise
                self.stop()
            except (RedisError, OSError):
                pass  # what it serves stays as it is
            self._want(self._deployment)
            await self._follow(server)

    async def _follow(self, server: ServerProcess) -> None:
        """Takes over what the engine process has loaded."""
        told: dict[str, Any] | None = await server.get_json(f"{self._door}/versions")
        if told is None:
            return
        self._replica = self._replica.model_copy(update={"versions": tuple(told["loaded"])})
        refused: dict[str, dict[str, str]] = told["refused"]
        if refused:
            why = "; ".join(f"version {version} is not served: {one['detail']}" for version, one in refused.items())
            active = self._deployment.active_version in refused
            self._say(DeploymentState.DEGRADED if active else DeploymentState.READY, why)
        else:
            self._say(DeploymentState.READY, "")

    def _want(self, deployment: Deployment) -> None:
        """Shows the engine process which versions to load: what is served, what was served before, what is tried."""
        trial = deployment.shadow.trial if deployment.shadow else None
        names = (deployment.active_version, deployment.previous_version, trial)
        wanted = tuple(dict.fromkeys(name for name in names if name is not None and name != IDENTITY))
        if wanted != self._wanted:
            write_atomically(self._folder / "versions.json", json.dumps({"versions": wanted}).encode(), mode=0o600)
            self._wanted = wanted

    async def _drain(self, server: ServerProcess, ended: asyncio.Task[str]) -> None:
        self._say(DeploymentState.DRAINING, "it was asked to go; running requests are finished")
        await self._say_now()
        deadline = time.monotonic() + self._settings.drain_s
        quiet = 0
        # A request that the gateway sent before it heard of this may still be on its way: quiet twice in a row.
        while time.monotonic() < deadline and not self._stop_now.is_set() and not ended.done() and quiet < 2:
            await asyncio.sleep(QUIET_POLL_S)
            quiet = quiet + 1 if await server.requests() == 0 else 0

    async def _first(self, working: asyncio.Task[Any]) -> bool:
        """Waits for the task or for the signal; True if the signal was first, and the task was cancelled."""
        told = asyncio.create_task(self._stop.wait())
        await asyncio.wait({working, told}, return_when=asyncio.FIRST_COMPLETED)
        first = not working.done()
        await cancel(told)
        if first and working.get_name() != "prepare":
            await cancel(working)
        return first

    # --- the lease

    def _say(self, state: DeploymentState, reason: str) -> None:
        if (state, reason) != (self._replica.state, self._replica.reason):
            if state is not self._replica.state:
                logger.info("%s is %s%s", self._deployment.name, state.value, f": {reason}" if reason else "")
            self._replica = self._replica.model_copy(update={"state": state, "reason": reason[:2000]})
            self._changed.set()

    def _fail(self, reason: str) -> None:
        logger.error("%s: %s", self._deployment.name, reason)
        self._say(DeploymentState.FAILED, reason)

    async def _renew(self) -> None:
        while True:
            self._changed.clear()
            try:
                await self._store.renew(self._deployment.id, self._replica)
            except HemostatError:
                self.stop()  # deleted
            except (RedisError, OSError) as error:
                logger.warning("Redis is not there (%s); serving goes on", type(error).__name__)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), self._settings.replica_renew_s)

    async def _say_now(self) -> None:
        with contextlib.suppress(HemostatError, RedisError, OSError):
            await self._store.renew(self._deployment.id, self._replica)

    async def _say_last(self) -> None:
        """A replica that failed is seen until its lease runs out; one that went is gone."""
        if self._replica.state is DeploymentState.FAILED:
            await self._say_now()
            return
        with contextlib.suppress(HemostatError, RedisError, OSError):
            await self._store.leave(self._deployment.id, self._replica.id)

    def _advertised(self, url: str) -> str:
        host = self._settings.advertise_host
        return url if host is None else url.replace(LOOPBACK, host, 1)


def _safe(host: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", host).strip(".-")[:64] or "host"


async def serve(settings: Settings, name_or_id: str, number: int) -> int:
    """Serves until told to go. The exit status."""
    client = connect(settings)
    try:
        store = DeploymentStore(client, settings)
        serving = Serving(settings, store, await store.get(name_or_id), number)
        loop = asyncio.get_running_loop()
        for received in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(received, serving.stop)
        return await serving.run()
    finally:
        await client.aclose()


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m workers.serve", description="One replica of a deployment.")
    parser.add_argument("--deployment", required=True, help="name or id")
    parser.add_argument("--replica", type=int, default=0, help="its number, from 0")
    options = parser.parse_args(arguments)
    settings = Settings()
    hide_memory()
    configure_logging("serve", settings.log_level)
    try:
        return asyncio.run(serve(settings, options.deployment, options.replica))
    except HemostatError as error:
        logger.error("%s; %s", error.detail, error.hint)  # noqa: TRY400 - it is reported whole
    except (RedisError, OSError) as error:
        logger.error("Redis is not there: %s", type(error).__name__)  # noqa: TRY400
    return 1


if __name__ == "__main__":
    sys.exit(main())
