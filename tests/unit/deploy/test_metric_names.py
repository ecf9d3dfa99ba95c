"""A rule or panel over a metric that nobody exports can never fire or show anything: each name is one of the code's."""

import re
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from app.contracts.job import JobStatus
from app.jobs.store import Statistics
from app.memory import Usage
from app.telemetry.deployments import DeploymentCollector
from app.telemetry.gateway import GatewayMetrics
from app.telemetry.metrics import Telemetry as ApiTelemetry
from deploy.grafana import board, mitigation
from workers.engine.serving.counters import Counters
from workers.telemetry import Telemetry as WorkerTelemetry
from workers.telemetry_shadow import ShadowTelemetry
from workers.telemetry_verify import VerifyTelemetry

ROOT = Path(__file__).resolve().parents[3]
USED = re.compile(r"\b(hemostat_\w+)")
FAMILY = re.compile(r"^# TYPE (\w+) (\w+)$", re.MULTILINE)
PARTS = ("_bucket", "_sum", "_count")


def registries() -> list[CollectorRegistry]:
    """Those of every process, as the code makes them."""
    api = ApiTelemetry()
    api.queue.statistics = Statistics(by_status=dict.fromkeys(JobStatus, 0), oldest_queued_s=0.0, finished={})
    api.queue.memory, api.queue.free_bytes = Usage(1, 2), 1
    more = CollectorRegistry()
    GatewayMetrics(more)
    deployments = DeploymentCollector()
    deployments.deployments = ()
    more.register(deployments)
    workers = [WorkerTelemetry().registry, ShadowTelemetry("bot").registry, Counters("bot").registry]
    return [api.registry, more, *workers, VerifyTelemetry("bot").registry]


def exported() -> set[str]:
    """Names of samples."""
    found: set[str] = set()
    for registry in registries():
        for name, kind in FAMILY.findall(generate_latest(registry).decode()):
            found |= {name + part for part in PARTS} if kind == "histogram" else {name}
    return found


def used() -> dict[str, set[str]]:
    """Name -> files that use it."""
    prometheus = ROOT / "deploy" / "prometheus"
    files = [*prometheus.glob("rules/*.yml"), *prometheus.glob("tests/*.yml"), board.FILE, mitigation.FILE]
    found: dict[str, set[str]] = {}
    for file in files:
        for name in USED.findall(file.read_text(encoding="utf-8")):
            found.setdefault(name, set()).add(file.name)
    return found


def test_every_metric_that_is_used_is_exported() -> None:
    names = exported()
    assert {name: files for name, files in used().items() if name not in names} == {}
