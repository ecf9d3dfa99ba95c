"""The metrics of the diagnosis worker: its own, and those that each kind of job declares (`Kind.metrics`).

The process that exports them never imports torch. The child process that computes sends samples by name
(`JobContext.observe`); `Telemetry.observe` is where a name becomes a metric. Labels that name a comparison are aliases
and recipe fingerprints only. The number of comparisons is bounded: the one that was measured longest ago goes first,
with all its series.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.process_collector import ProcessCollector

from app.contracts.distances import DISTANCES
from app.contracts.metric import COMPARISON, PHASE_BUCKETS, PREFIX, Metric
from app.contracts.report import SEVERITIES
from app.kinds.registry import KINDS

OTHER = "other"
MAX_COMPARISONS = 200

# Phases of a job, in order. A phase that is not here is counted as "other".
PHASES = (
    "text",
    "modify",
    "engine",
    "head_check",
    "reference",
    "noise_floor",
    "candidate",
    "kernel_term",
    "points",
    "diagnose",
    "search",
    "fit",
    "choose",
    "test",
    "tasks",
    "generate",
    "shapes",
    "borders",
    "swap",
    "look",
    "internals",
    "statistics",
    "report",
)
ROLES = ("reference", "candidate", "noise_floor", "kernel_term", "points", "generate")
STORES = ("reference", "checkpoint", "corpus", "head")
OUTCOMES = ("succeeded", "failed", "cancelled", "released", "lost")
CHILD_EXITS = ("idle", "failure", "out_of_memory", "cancel", "crash", "lost", "drain", "stalled", "timed_out")

# What one metric is called that the worker also exports of itself (`app.jobs.workers.WorkerInfo`).
SCORING_RATE: Final = "scoring_parameter_tokens_per_second"
KL_BUCKETS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0)

_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_RECIPE = re.compile(r"[0-9a-f]{12}|none")


class UnknownMetricError(ValueError):
    """A sample's name or labels are not those of a metric of this file."""


_OWN: Final = (
    # the worker
    Metric("worker", "gauge", "Always 1; the labels describe this worker.", ("version", "device")),
    Metric("worker_busy", "gauge", "1 while a job runs, else 0."),
    Metric("worker_helping", "gauge", "1 while it measures points of another worker's job, else 0."),
    Metric("worker_job_silent_seconds", "gauge", "Time since the running job's last progress; 0 if no job runs."),
    Metric("worker_redis_up", "gauge", "1 while the last write to Redis succeeded, else 0."),
    Metric("worker_jobs", "counter", "Attempts that ended here, by outcome.", ("outcome",), {"outcome": OUTCOMES}),
    Metric("worker_redeliveries", "counter", "Attempts that took over a job from an attempt that was lost."),
    Metric("worker_leases_lost", "counter", "Attempts that were stopped because another worker took the job over."),
    Metric("worker_child_starts", "counter", "Starts of the child process that holds the engine."),
    Metric(
        "worker_child_exits", "counter", "Ends of the child process, by reason.", ("reason",), {"reason": CHILD_EXITS}
    ),
    Metric("worker_child_resident_bytes", "gauge", "Resident memory of the child process; 0 while there is none."),
    # the work
    Metric("phase_seconds", "histogram", "Duration of a phase of a job.", ("phase",), {"phase": PHASES}, PHASE_BUCKETS),
    Metric("tokens_scored", "counter", "Tokens that went through a model, by role.", ("role",), {"role": ROLES}),
    Metric(SCORING_RATE, "gauge", "Parameters times tokens per second of the last pass of a reference over a text."),
    Metric("engine_starts", "counter", "Engines that were started."),
    Metric("engine_weight_swaps", "counter", "Weights that were swapped in a running engine."),
    Metric("store_hits", "counter", "Look-ups that a store answered.", ("store",), {"store": STORES}),
    Metric("store_misses", "counter", "Look-ups that a store could not answer.", ("store",), {"store": STORES}),
    Metric("store_bytes", "gauge", "Size of a store on disk.", ("store",), {"store": STORES}),
    # what was measured, by comparison
    Metric("kl_nats", "histogram", "KL(reference‖candidate) of scored tokens.", COMPARISON, None, KL_BUCKETS),
    Metric(
        "distance_mean",
        "gauge",
        "Mean of each distance in the last measurement, in its unit.",
        (*COMPARISON, "distance"),
        {"distance": tuple(distance.name for distance in DISTANCES)},
    ),
    Metric("kl_mean_nats", "gauge", "Mean KL of the last measurement.", COMPARISON),
    Metric("kl_mean_low_nats", "gauge", "Lower 95 % limit of the mean KL of the last measurement.", COMPARISON),
    Metric("kl_mean_high_nats", "gauge", "Upper 95 % limit of the mean KL of the last measurement.", COMPARISON),
    Metric(
        "kl_threshold_nats",
        "gauge",
        "Mean KL at which a severity class begins, by the limits of the last measurement.",
        (*COMPARISON, "severity"),
        {"severity": SEVERITIES[1:]},
    ),
    Metric(
        "top1_agreement_ratio", "gauge", "Share of tokens at which both models rank the same token first.", COMPARISON
    ),
    Metric("perplexity_ratio", "gauge", "Perplexity of the candidate over that of the reference.", COMPARISON),
    Metric("severity", "gauge", "Verdict: 0 none, 1 mild, 2 moderate, 3 severe, 4 collapse.", COMPARISON),
    Metric("nonfinite_positions", "gauge", "Positions with non-finite logits in the last measurement.", COMPARISON),
    Metric("last_measurement_timestamp_seconds", "gauge", "When the last measurement ended, Unix time.", COMPARISON),
)


def catalogue() -> tuple[Metric, ...]:
    """Every metric."""
    return _OWN + tuple(metric for kind in KINDS.values() for metric in kind.metrics)


class Metrics:
    """Metrics of a process in a registry of their own. Scraping from another thread is safe."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._metrics = {metric.name: (metric, self._make(metric)) for metric in metrics}

    def value(self, name: str, **labels: str) -> float | None:
        """What a scrape would show of one series (`name` is the short name), of a histogram its count."""
        metric, _ = self._metrics[name]
        suffix = {"counter": "_total", "histogram": "_count", "gauge": ""}[metric.kind]
        return self.registry.get_sample_value(f"{PREFIX}{name}{suffix}", labels)

    def _make(self, metric: Metric) -> MetricWrapperBase:
        name = PREFIX + metric.name
        if metric.kind == "counter":
            return Counter(name, metric.help, metric.labels, registry=self.registry)
        if metric.kind == "gauge":
            return Gauge(name, metric.help, metric.labels, registry=self.registry)
        return Histogram(name, metric.help, metric.labels, registry=self.registry, buckets=metric.buckets)


class Telemetry(Metrics):
    """The worker's metrics.

    `observe` is not thread-safe against itself; scraping from another thread is safe.
    """

    def __init__(self, *, max_comparisons: int = MAX_COMPARISONS) -> None:
        super().__init__(catalogue())
        self._max_comparisons = max_comparisons
        # Least recently measured first.
        self._comparisons: OrderedDict[tuple[str, ...], None] = OrderedDict()

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Counts `value` (counter), sets it (gauge) or records it (histogram). Raises `UnknownMetricError`."""
        self.observe_many(name, (value,), labels)

    def observe_many(self, name: str, values: Iterable[float], labels: Mapping[str, str]) -> None:
        """`observe` for many values of one series."""
        found = self._metrics.get(name)
        if found is None:
            raise UnknownMetricError(f"there is no metric {name!r}")
        metric, wrapper = found
        if set(labels) != set(metric.labels):
            raise UnknownMetricError(f"metric {name!r} has the labels {metric.labels}, not {tuple(labels)}")
        fixed = metric.values or {}
        ordered = tuple(
            labels[label] if label not in fixed or labels[label] in fixed[label] else OTHER for label in metric.labels
        )
        if metric.per_comparison:
            for label, text in zip(COMPARISON, ordered, strict=False):
                if not (_RECIPE if label == "recipe" else _ALIAS).fullmatch(text):
                    raise UnknownMetricError(f"metric {name!r}: label {label} is neither an alias nor a fingerprint")
            self._touch(ordered[: len(COMPARISON)])
        series = wrapper.labels(*ordered) if ordered else wrapper
        record = _recorder(series)
        for value in values:
            record(value)

    def child_ended(self) -> None:
        """Sets what a child process that was killed in the middle has not set back."""
        for metric, _ in self._metrics.values():
            if metric.of_child:
                self.observe(metric.name, 0)

    def _make(self, metric: Metric) -> MetricWrapperBase:
        made = super()._make(metric)
        # Series of a fixed set exist from the start, so that a rate over them has a first value.
        if len(metric.labels) == 1 and metric.values:
            for value in metric.values[metric.labels[0]]:
                made.labels(value)
        return made

    def _touch(self, comparison: tuple[str, ...]) -> None:
        self._comparisons[comparison] = None
        self._comparisons.move_to_end(comparison)
        while len(self._comparisons) > self._max_comparisons:
            self._forget(self._comparisons.popitem(last=False)[0])

    def _forget(self, comparison: tuple[str, ...]) -> None:
        for metric, wrapper in self._metrics.values():
            if metric.per_comparison:
                wrapper.remove_by_labels(dict(zip(COMPARISON, comparison, strict=True)))


def _recorder(series: MetricWrapperBase) -> Callable[[float], None]:
    if isinstance(series, Counter):
        return series.inc
    if isinstance(series, Gauge):
        return series.set
    if isinstance(series, Histogram):
        return series.observe
    raise TypeError(type(series).__name__)
