"""Processes of a deployment, as Prometheus sees them: the metric objects of the code, served and registered for real.

What they show is set by the tests; who serves it, under which names, with which labels, and how Prometheus finds it is
the service's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, start_http_server
from redis.exceptions import RedisError

from app.contracts.deployment import CalibrationMode, Deployment, DeploymentRequest, DeploymentState, Replica
from app.contracts.request import CandidateModel, ReferenceModel
from app.deployments.store import DeploymentStore
from app.settings import Settings
from app.telemetry.gateway import GatewayMetrics
from tests.support.patient import connect_patiently
from workers.engine.serving.counters import Counters
from workers.telemetry_shadow import ShadowTelemetry

T = TypeVar("T")
ALIAS: Final = "smollm2-135m"
RENEW_S: Final = 1.0


class Exporters:
    """A deployment in the store with a serving and a shadow process that say they are ready, renewed by a thread."""

    def __init__(self, settings: Settings, name: str) -> None:
        self.settings = settings
        self.name = name
        self.shadow = ShadowTelemetry(name)
        self.engine = Counters(name)
        registry = CollectorRegistry()
        self.gateway = GatewayMetrics(registry)
        self.gateway.watch(name, lambda: 3, lambda: 0)
        self._servers = [
            start_http_server(0, addr="127.0.0.1", registry=each)
            for each in (self.shadow.registry, self.engine.registry, registry)
        ]
        urls = [f"http://127.0.0.1:{server.server_port}/metrics" for server, _ in self._servers]
        self._replicas = [
            Replica(id=f"{name}-shadow", role="shadow", state=DeploymentState.READY, metrics_urls=(urls[0],)),
            Replica(id=f"{name}-0", role="serve", state=DeploymentState.READY, metrics_urls=(urls[1], urls[2])),
        ]
        model = CandidateModel.model_validate(
            {"model": ALIAS, "recipe": [{"type": "quantize.rtn", "bits": 4, "group_size": 64}]}
        )
        frozen = CalibrationMode.FROZEN  # nothing is fitted for it in the background
        request = DeploymentRequest(name=name, model=model, reference=ReferenceModel(model=ALIAS), calibration=frozen)
        self.deployment: Deployment = self.ask(lambda store: store.create(request))
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live)
        self._thread.start()

    @property
    def id(self) -> str:
        return self.deployment.id

    def ask(self, question: Callable[[DeploymentStore], Awaitable[T]]) -> T:
        """One question to the store, on a connection of its own."""

        async def run() -> T:
            client = connect_patiently(self.settings)
            try:
                return await question(DeploymentStore(client, self.settings))
            finally:
                await client.aclose()

        return asyncio.run(run())

    def bleed(self, *, raw: float, calibrated: float, threshold: float) -> None:
        """Served traffic with these mean divergences, in nats a token."""
        now = time.time()
        for stage, mean in {"raw": raw, "calibrated": calibrated, "engine": 1e-4}.items():
            for limit, factor in {"low": 0.9, "mean": 1.0, "high": 1.1}.items():
                self.shadow.set(f"served_kl_{limit}_nats", factor * mean, stage=stage)
            self.shadow.record("served_kl_nats", [mean] * 10, stage=stage)
        for limit, factor in {"low": 0.8, "mean": 1.0, "high": 1.2}.items():
            self.shadow.set(f"served_saved_{limit}_nats", factor * (raw - calibrated))
        for stage, ratio in {"raw": 0.66, "calibrated": 0.71}.items():
            self.shadow.set("served_top1_agreement_ratio", ratio, stage=stage)
        self.shadow.set("served_severity", 3.0 if calibrated > 0.2 else 2.0)
        self.shadow.set("drift_threshold_nats", threshold)
        self.shadow.set("drift_e_value", 210.0 if calibrated > threshold else 0.7)
        self.shadow.set("drift_e_value_needed", 200.0)
        self.shadow.set("drift_quiet_limit_nats", 0.4)
        self.shadow.set("drift_quiet_e_value", 0.6)
        self.shadow.set("drift_quiet_e_value_needed", 400.0)
        self.shadow.set("drift_last_observation_timestamp_seconds", now)
        self.shadow.set("shadow_lag_seconds", 2.5)
        for state in ("learning", "ok", "alarm", "stale"):
            holds = state == ("alarm" if calibrated > threshold else "ok")
            self.shadow.set("drift_state", float(holds), state=state)
        self.shadow.set("drift_alarm_active", float(calibrated > threshold), limit="drift")
        self.shadow.set("drift_alarm_active", 0.0, limit="quiet")

    def serve(self) -> None:
        """A little traffic: counted as the gateway, the engine and the shadow process count it."""
        self.gateway.requests.labels(self.name, "/v1/chat/completions", "200").inc()
        self.gateway.first_token.labels(self.name).observe(0.2)
        self.gateway.between_tokens.labels(self.name).observe(0.03)
        self.gateway.tokens.labels(self.name, "prompt").inc(20)
        self.gateway.tokens.labels(self.name, "completion").inc(40)
        self.gateway.sampled.labels(self.name).inc()
        self.engine.calibrated.inc(40)
        self.shadow.add("shadow_scored_requests")
        self.shadow.add("shadow_scored_tokens", 40)

    def _live(self) -> None:
        async def renew(store: DeploymentStore) -> None:
            for replica in self._replicas:
                await store.renew(self.id, replica)
            await store.settle(self.id)

        while not self._ended.is_set():
            with contextlib.suppress(RedisError, OSError):  # a busy machine answers late; the next round says it again
                self.ask(renew)
            self.serve()
            self._ended.wait(RENEW_S)

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        self.ask(lambda store: store.delete(self.id))
        for server, thread in self._servers:
            server.shutdown()
            server.server_close()
            thread.join()


@contextlib.contextmanager
def exporters(settings: Settings, name: str) -> Iterator[Exporters]:
    made = Exporters(settings, name)
    try:
        yield made
    finally:
        made.stop()
