"""Metrics of an engine process, in a registry of its own: vLLM's are served by its own server."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

LOAD_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Counters:
    """One of each. `deployment` is its name from the store."""

    def __init__(self, deployment: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        rows = Counter(
            "hemostat_serving_rows",
            "Rows of logits that were computed to draw a token, by whether they were corrected.",
            ["deployment", "calibrated"],
            registry=self.registry,
        )
        self.calibrated = rows.labels(deployment, "yes")
        self.plain = rows.labels(deployment, "no")
        self.nonfinite = Counter(
            "hemostat_serving_nonfinite_requests",
            "Requests that were ended because their logits were no distribution.",
            ["deployment"],
            registry=self.registry,
        ).labels(deployment)
        self.loaded = Gauge(
            "hemostat_serving_profiles_loaded",
            "Calibration profiles that are loaded, identity not counted.",
            ["deployment"],
            registry=self.registry,
        ).labels(deployment)
        self.load_seconds = Histogram(
            "hemostat_serving_profile_load_seconds",
            "Time to load and try a calibration profile.",
            buckets=LOAD_BUCKETS,
            registry=self.registry,
        )
