"""The whole service as a user runs it, with a model whose candidate is the same weights at 4 bits."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import torch
from safetensors.torch import load_file, save_file

from app.contracts.deployment import DeploymentState
from app.settings import Settings
from tests.integration.conftest import RedisServer
from tests.support.ports import free_port
from tests.support.prometheus import Prometheus
from tests.support.tiny import make_checkpoint
from tests.support.worker import ROOT, environment, wait_for

Json = dict[str, Any]
PATIENCE_S = 400
CONTEXT = 1024
RECIPE = [{"type": "quantize.rtn", "bits": 4, "group_size": 64}]


class Endpoint:
    """`hemostat up` over an embedded Valkey that the test may kill, and a Prometheus that scrapes all of it.

    The model is a tiny one under the alias `tiny`, or the checkpoint `reference`; `changed` are settings.
    """

    def __init__(self, folder: Path, *, reference: Path | None = None, **changed: Any) -> None:
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        if reference is None:
            make_checkpoint(self.home / "tiny", seed=3, scale=5.0, max_position_embeddings=CONTEXT)
        else:
            shutil.copytree(reference, self.home / "tiny")
        reference = self.home / "tiny"
        shutil.copytree(reference, self.home / "served")
        self._good = folder / "good"
        shutil.copytree(reference, self._good)
        (self.home / "models.toml").write_text('[models.tiny]\npath = "tiny"\n[models.served]\npath = "served"\n')
        self.redis = RedisServer(self.home)
        port, worker = free_port(), free_port()
        chosen: dict[str, Any] = {
            "share_serving": 0.1,
            "engine_kv_cache_bytes": 16 * 1024 * 1024,
            "engine_batch_tokens": 2048,
            "redelivery_s": 120.0,  # the worker is held for a while
            "shadow_queue": 1024,
            "shadow_nice": 1,  # by default its start would wait for the other tests
            # Nothing is refitted: what the first fit is worth is to be seen.
            "shadow_refit_after_tokens": 10**9,
            "shadow_refit_fresh": 10**6,
            "sse_heartbeat_s": 1.0,
        }
        self.settings = Settings(
            home=self.home,
            redis_url=self.redis.url,
            port=port,
            worker_metrics_port=worker,
            deploy_demo=False,
            requests_per_minute=100_000,
            **(chosen | changed),
        )
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=self.url, timeout=60)
        self._up: subprocess.Popen[bytes] | None = None
        self._prometheus: Prometheus | None = None
        self._ports = (port, worker)
        self._folder = folder

    # --- processes

    def start(self) -> None:
        """All of it, until it takes jobs."""
        self.redis.start()
        with (self._folder / "up.log").open("wb") as log:
            self._up = subprocess.Popen(
                [sys.executable, "-m", "app.cli.main", "up"],
                cwd=ROOT,
                env=environment(self.settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._prometheus = Prometheus(self._folder / "prometheus", api=self._ports[0], worker=self._ports[1])
        wait_for(self._ready, what="service", timeout_s=PATIENCE_S)

    def stop(self) -> None:
        """Whatever runs."""
        self.http.close()
        if self._prometheus is not None:
            self._prometheus.stop()
        if self._up is not None and self._up.poll() is None:
            self._up.terminate()
            self._up.send_signal(signal.SIGTERM)
            try:
                self._up.wait(60)
            except subprocess.TimeoutExpired:
                self._up.kill()
        self.redis.stop()

    @property
    def prometheus(self) -> Prometheus:
        """What watches it."""
        assert self._prometheus is not None
        return self._prometheus

    def hold_worker(self) -> Callable[[], None]:
        """Stops the worker that runs jobs, as a busy machine would; what lets it go on."""
        assert self._up is not None
        parent = psutil.Process(self._up.pid)
        worker = next(one for one in parent.children() if "workers.main" in one.cmdline())
        held = [worker, *worker.children(recursive=True)]
        for process in held:
            process.suspend()

        def release() -> None:
            for process in held:
                process.resume()

        return release

    def kill_replica(self) -> None:
        """kill -9 of the serving process, whose server and engine go with it."""
        (pid,) = [one["pid"] for one in self.get()["running"] if one["role"] == "serve"]
        os.kill(pid, signal.SIGKILL)

    def log(self) -> str:
        """The last words of every process."""
        files = [self._folder / "up.log", *self.home.glob("logs/*.log"), *self.home.glob("deployments/*/logs/*.log")]
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-1500:]}" for file in files)

    # --- the deployment

    def get(self) -> Json:
        """The deployment, as the service tells it."""
        answer = self.http.get("/v1/deployments/bot")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def until(self, condition: Callable[[Json], Any], what: str, timeout_s: float = PATIENCE_S) -> Json:
        """The deployment, as soon as the condition holds."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = self.get()
            if condition(found):
                return found
            assert time.monotonic() < deadline, f"{what}: {found}\n{self.log()}"
            time.sleep(0.2)

    def until_serving(self, *, not_pid: int = 0, version: str = "") -> Json:
        """Until a replica (another than `not_pid`, with `version` loaded) takes requests."""

        def serves(found: Json) -> bool:
            return any(
                one["role"] == "serve"
                and one["state"] in (DeploymentState.READY, DeploymentState.DEGRADED)
                and one["pid"] != not_pid
                and (not version or version in one["versions"])
                for one in found["running"]
            )

        return self.until(serves, f"a replica that serves {version}")

    def events(self) -> list[Json]:
        """Everything that happened to the deployment."""
        answer = self.http.get("/v1/deployments/bot/events", params={"limit": 500})
        assert answer.status_code == 200, answer.text
        return list(answer.json()["data"])

    def wait_event(self, kind: str, *, after: int = 0) -> Json:
        """The first such event after the one with that number."""
        return wait_for(
            lambda: next((one for one in self.events() if one["type"] == kind and one["id"] > after), None) or {},
            what=f"event {kind}",
            timeout_s=PATIENCE_S,
        )

    # --- its weights

    def put_worse(self) -> None:
        """Another checkpoint in place of the one that is served: every matrix with noise of half its own size."""
        tensors = load_file(self._good / "model.safetensors")
        generator = torch.Generator().manual_seed(11)
        worse = {
            name: weight
            if weight.ndim < 2 or "embed" in name
            else (weight + 0.5 * weight.float().std() * torch.randn(weight.shape, generator=generator)).to(weight.dtype)
            for name, weight in tensors.items()
        }
        self._put(worse)

    def put_good(self) -> None:
        """What it was deployed with."""
        self._put(load_file(self._good / "model.safetensors"))

    def _put(self, tensors: dict[str, torch.Tensor]) -> None:
        target = self.home / "served" / "model.safetensors"
        made = target.with_name("made.tmp")
        save_file(tensors, made, metadata={"format": "pt"})
        made.replace(target)

    def _ready(self) -> bool:
        assert self._up is not None
        assert self._up.poll() is None, self.log()
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False
