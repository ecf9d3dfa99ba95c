"""Every metric of the front end, in one file.

Labels are bounded: routes are templates, methods, statuses and kinds come from fixed sets. What a client wrote never
becomes a label. The state of the queue is read from Redis at each scrape. While Redis is away those series are absent,
since a stale number would look like news, and `hemostat_redis_up` is 0.
"""

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from app.contracts.job import TERMINAL, JobStatus
from app.jobs.store import Statistics
from app.kinds.registry import KINDS
from app.memory import Usage
from app.telemetry.deployments import DeploymentCollector
from app.telemetry.gateway import GatewayMetrics

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
UNMATCHED: Final = "unmatched"
OTHER: Final = "other"
# Two tenths of a millisecond to half a minute: what stays below is not worth seeing, what is above is a stream.
LATENCY_BUCKETS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SUBMISSIONS: Final = ("created", "replayed", "dry_run", "refused")


class QueueCollector(Collector):
    """The queue as it was last read; yields nothing of it while it could not be read."""

    def __init__(self) -> None:
        self.statistics: Statistics | None = None
        self.workers = 0
        self.memory = Usage()
        self.free_bytes: int | None = None

    def collect(self) -> Iterator[Metric]:
        """The families of this scrape."""
        up = self.statistics is not None
        yield GaugeMetricFamily("hemostat_redis_up", "1 while Redis answers, else 0.", value=float(up))
        if self.free_bytes is not None:
            yield GaugeMetricFamily(
                "hemostat_home_free_bytes", "Free space of the disk of HEMOSTAT_HOME.", value=self.free_bytes
            )
        if self.statistics is None:
            return
        if self.memory.most:
            yield GaugeMetricFamily(
                "hemostat_redis_memory_ratio",
                "Used share of the memory that Redis may use; absent if it has no limit.",
                value=self.memory.ratio,
            )
        jobs = GaugeMetricFamily("hemostat_jobs", "Jobs by status.", labels=["status"])
        for status in JobStatus:
            jobs.add_metric([status.value], self.statistics.by_status[status])
        yield jobs
        yield GaugeMetricFamily(
            "hemostat_job_queue_depth",
            "Jobs that wait for a worker.",
            value=self.statistics.by_status[JobStatus.QUEUED],
        )
        yield GaugeMetricFamily(
            "hemostat_job_queue_oldest_age_seconds",
            "How long the oldest queued job has waited; 0 if none waits.",
            value=self.statistics.oldest_queued_s,
        )
        finished = CounterMetricFamily(
            "hemostat_jobs_finished", "Jobs that ended, by kind and outcome.", labels=["kind", "outcome"]
        )
        for kind in KINDS:
            for status in sorted(TERMINAL):
                finished.add_metric([kind, status.value], self.statistics.finished.get((kind, status), 0))
        yield finished
        yield GaugeMetricFamily("hemostat_workers", "Workers whose heartbeat is fresh.", value=self.workers)


class Telemetry:
    """The front end's metrics in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.queue = QueueCollector()
        self.registry.register(self.queue)
        self.deployments = DeploymentCollector()
        self.registry.register(self.deployments)
        self.requests = Counter(
            "hemostat_http_requests_total",
            "Requests by route template, method and status.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self.owner_requests = Counter(
            "hemostat_owner_requests_total",
            "Requests by owner of API keys and status; 429 is a limit.",
            ["owner", "status"],
            registry=self.registry,
        )
        self.latency = Histogram(
            "hemostat_http_request_duration_seconds",
            "Time from the first byte of the request to the last byte of the answer, without event streams.",
            ["route", "method"],
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "hemostat_http_in_flight_requests",
            "Requests that are being answered, streams included.",
            registry=self.registry,
        )
        self.key_faults = Gauge(
            "hemostat_api_key_file_faults",
            "Lines of the key file that cannot be read; 1 if the file cannot.",
            registry=self.registry,
        )
        self.streams = Gauge("hemostat_sse_connections", "Open event streams.", registry=self.registry)
        self.submitted = Counter(
            "hemostat_jobs_submitted_total",
            "Submissions by kind and outcome.",
            ["kind", "outcome"],
            registry=self.registry,
        )
        self.gateway = GatewayMetrics(self.registry)
        for kind in KINDS:
            for outcome in SUBMISSIONS:
                self.submitted.labels(kind, outcome)

    def render(self) -> bytes:
        """The text exposition."""
        return generate_latest(self.registry)
