"""Metrics of a verify process."""

from __future__ import annotations

import math

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics
from prometheus_client.process_collector import ProcessCollector


class VerifyTelemetry:
    """The process' metrics in a registry of their own."""

    def __init__(self, deployment: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        labels = ["deployment"]
        self._requests = Counter(
            "hemostat_verify_requests_total", "Requests that were verified.", labels, registry=self.registry
        ).labels(deployment)
        self._acceptance = Gauge(
            "hemostat_verify_acceptance_ratio",
            "Mean of 1 − TV(reference, candidate) over the drafted positions since the start.",
            labels,
            registry=self.registry,
        ).labels(deployment)
        self._per_pass = Gauge(
            "hemostat_verify_tokens_per_reference_pass",
            "Tokens per pass of the reference since the start.",
            labels,
            registry=self.registry,
        ).labels(deployment)
        for unknown in (self._acceptance, self._per_pass):
            unknown.set(math.nan)  # until a request has said
        self._overlap = 0.0
        self._drafted = self._tokens = self._passes = 0

    def finished(self, *, drawn: int, passes: int, drafted: int, overlap: float) -> None:
        """Counts an answer that has ended.

        `drawn`: its tokens, `passes`: of the reference, `drafted`: positions that were judged, `overlap`: Σ 1 − TV over
        these.
        """
        self._requests.inc()
        self._drafted += drafted
        self._overlap += overlap
        self._tokens += drawn
        self._passes += passes
        if self._drafted:
            self._acceptance.set(self._overlap / self._drafted)
        if self._passes:
            self._per_pass.set(self._tokens / self._passes)
