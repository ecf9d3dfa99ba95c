"""Metrics of the gateway. `deployment` is a name out of the store or "unknown", never what a client wrote."""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

UNKNOWN: Final = "unknown"
ABORTS: Final = ("client", "slow_client", "shutdown")
DROPS: Final = ("budget", "queue_full", "unavailable", "aborted", "failed", "too_long")
# From a cached prompt on a GPU to a long one on a CPU.
_FIRST_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_BETWEEN_BUCKETS: Final = (0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)


class GatewayMetrics:
    """The families, in the registry of the front end."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "hemostat_gateway_requests_total",
            "Requests to the OpenAI routes by deployment, route and status; 499 is a client that left.",
            ["deployment", "route", "status"],
            registry=registry,
        )
        self.first_token = Histogram(
            "hemostat_gateway_time_to_first_token_seconds",
            "Time from the request to the first event of its stream, queueing included.",
            ["deployment"],
            buckets=_FIRST_BUCKETS,
            registry=registry,
        )
        self.between_tokens = Histogram(
            "hemostat_gateway_inter_token_latency_seconds",
            "Time between two events of a stream that carry tokens.",
            ["deployment"],
            buckets=_BETWEEN_BUCKETS,
            registry=registry,
        )
        self.tokens = Counter(
            "hemostat_gateway_tokens_total",
            "Tokens of answered requests, as the replica counted them.",
            ["deployment", "kind"],
            registry=registry,
        )
        self.owner_tokens = Counter(
            "hemostat_owner_tokens_total",
            "Tokens of prompts and answers by owner of API keys.",
            ["owner"],
            registry=registry,
        )
        self.in_flight = Gauge(
            "hemostat_gateway_in_flight_requests", "Requests at the replicas.", ["deployment"], registry=registry
        )
        self.queued = Gauge(
            "hemostat_gateway_queued_requests", "Requests that wait for a replica.", ["deployment"], registry=registry
        )
        self.aborts = Counter(
            "hemostat_gateway_aborts_total",
            "Generations that were stopped before their end, by reason.",
            ["deployment", "reason"],
            registry=registry,
        )
        self.retries = Counter(
            "hemostat_gateway_retries_total",
            "Requests that were sent to another replica because one failed before anything was answered.",
            ["deployment"],
            registry=registry,
        )
        self.sampled = Counter(
            "hemostat_shadow_sampled_total",
            "Requests that were queued to be scored again.",
            ["deployment"],
            registry=registry,
        )
        self.dropped = Counter(
            "hemostat_shadow_dropped_total",
            "Requests that were drawn to be scored again and were not queued, by reason.",
            ["deployment", "reason"],
            registry=registry,
        )

    def watch(self, deployment: str, in_flight: Callable[[], int], queued: Callable[[], int]) -> None:
        """Makes the series of a deployment, its counters at zero; the gauges are read when they are scraped."""
        for reason in ABORTS:
            self.aborts.labels(deployment, reason)
        for reason in DROPS:
            self.dropped.labels(deployment, reason)
        for kind in ("prompt", "completion"):
            self.tokens.labels(deployment, kind)
        for family in (self.retries, self.sampled, self.first_token, self.between_tokens):
            family.labels(deployment)
        self.in_flight.labels(deployment).set_function(in_flight)
        self.queued.labels(deployment).set_function(queued)

    def forget(self, deployment: str) -> None:
        """Takes the series of a deployment away that is no more, so that names that come and go leave nothing."""
        for family in (
            *(self.requests, self.first_token, self.between_tokens, self.tokens, self.in_flight, self.queued),
            *(self.aborts, self.retries, self.sampled, self.dropped),
        ):
            family.remove_by_labels({"deployment": deployment})
