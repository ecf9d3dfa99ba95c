"""Every metric of the shadow process, in one file: what served traffic was found to be.

One process watches one deployment, so `deployment` is one fixed label, the name that the store knows.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from app.contracts.deployment import DriftState
from app.contracts.metric import Metric
from workers.telemetry import Metrics, UnknownMetricError

DEPLOYMENT = "deployment"
STAGES = ("raw", "calibrated", "engine")
MODELS = ("raw", "calibrated")
DRIFT_STATES = tuple(state.value for state in DriftState)
LIMITS = ("drift", "quiet")
# Why a sample was not scored.
SKIPPED = ("expired", "too_long", "vocabulary", "no_rows", "version", "nonfinite", "failed")
REFITS = ("tried", "refused", "cancelled", "failed")
# `refused`: it could not begin; the others ended.
TRIALS = ("proven", "rejected", "inconclusive", "broken_off", "refused")
KL_BUCKETS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0)


def _metric(
    name: str, kind: str, help_: str, label: str | None = None, values: tuple[str, ...] = (), *, buckets: bool = False
) -> Metric:
    labels = (DEPLOYMENT,) if label is None else (DEPLOYMENT, label)
    fixed = None if label is None else {label: values}
    return Metric(name, kind, help_, labels, fixed, KL_BUCKETS if buckets else ())  # type: ignore[arg-type]


SHADOW_CATALOGUE: tuple[Metric, ...] = (
    _metric(
        "served_kl_mean_nats",
        "gauge",
        "Mean KL of the recent window: reference‖candidate raw and calibrated, serving‖scoring engine.",
        "stage",
        STAGES,
    ),
    _metric("served_kl_low_nats", "gauge", "Lower 95 % limit of that mean.", "stage", STAGES),
    _metric("served_kl_high_nats", "gauge", "Upper 95 % limit of that mean.", "stage", STAGES),
    _metric("served_kl_nats", "histogram", "KL of each scored token.", "stage", STAGES, buckets=True),
    _metric("served_saved_mean_nats", "gauge", "Mean of raw − calibrated, paired by position; the recent window."),
    _metric("served_saved_low_nats", "gauge", "Lower 95 % limit of that mean."),
    _metric("served_saved_high_nats", "gauge", "Upper 95 % limit of that mean."),
    _metric(
        "served_top1_agreement_ratio",
        "gauge",
        "Share of positions at which both models rank the same token first.",
        "stage",
        MODELS,
    ),
    _metric(
        "served_severity", "gauge", "Class of the calibrated mean: 0 none, 1 mild, 2 moderate, 3 severe, 4 collapse."
    ),
    _metric("drift_threshold_nats", "gauge", "Mean KL above which served traffic has drifted; absent: not known."),
    _metric(
        "drift_quiet_limit_nats",
        "gauge",
        "Mean KL above which traffic is worse than the first live requests; absent: not learned.",
    ),
    _metric("drift_quiet_e_value", "gauge", "Evidence that the mean KL is above the quiet limit."),
    _metric("drift_quiet_e_value_needed", "gauge", "Evidence at which the quiet alarm is raised; absent: no limit."),
    _metric("drift_state", "gauge", "1 for the state that holds, else 0.", "state", DRIFT_STATES),
    _metric("drift_e_value", "gauge", "Evidence against no drift."),
    _metric("drift_e_value_needed", "gauge", "Evidence at which an alarm is raised; absent: no threshold is known."),
    _metric("drift_alarm_active", "gauge", "1 while the alarm of this limit holds, else 0.", "limit", LIMITS),
    _metric("drift_alarms", "counter", "Drift alarms that were raised."),
    _metric("drift_last_observation_timestamp_seconds", "gauge", "When a request was last scored, Unix time."),
    _metric("shadow_scored_requests", "counter", "Requests that were scored again."),
    _metric("shadow_scored_tokens", "counter", "Generated tokens that were scored again."),
    _metric("shadow_lag_seconds", "gauge", "Age of the youngest sample when it was scored."),
    _metric("shadow_skipped", "counter", "Samples that were taken and not scored, by reason.", "reason", SKIPPED),
    _metric("shadow_engine_term_missing", "counter", "Scored requests whose served hidden states were missing."),
    _metric("shadow_refits", "counter", "Refits by outcome.", "outcome", REFITS),
    _metric("shadow_trials", "counter", "Trials of versions by outcome.", "outcome", TRIALS),
    _metric("shadow_trial_requests", "gauge", "Requests that the version on trial has been compared on."),
    _metric("shadow_engine_up", "gauge", "1 while both models can be scored, else 0."),
    _metric("shadow_redis_up", "gauge", "1 while Redis answers, else 0."),
)


class ShadowTelemetry(Metrics):
    """The metrics of one deployment's shadow process.

    A gauge has no series before it is first set: nothing known is not zero. Counters exist from the start.
    """

    def __init__(self, deployment: str) -> None:
        self.deployment = deployment
        super().__init__(SHADOW_CATALOGUE)

    def set(self, name: str, value: float | None, **labels: str) -> None:
        """Sets a gauge; None takes its series away. Raises `UnknownMetricError`."""
        series = self._series(name, "gauge", labels, made=value is not None)
        if value is not None and isinstance(series, Gauge):
            series.set(value)

    def add(self, name: str, value: float = 1, **labels: str) -> None:
        """Adds to a counter. Raises `UnknownMetricError`."""
        series = self._series(name, "counter", labels)
        if isinstance(series, Counter):
            series.inc(value)

    def record(self, name: str, values: Iterable[float], **labels: str) -> None:
        """Records values in a histogram. Raises `UnknownMetricError`."""
        series = self._series(name, "histogram", labels)
        if isinstance(series, Histogram):
            for value in values:
                series.observe(value)

    def value(self, name: str, **labels: str) -> float | None:
        """What a scrape would show of one series, of a histogram its count; None if there is none."""
        return super().value(name, **{DEPLOYMENT: self.deployment, **labels})

    def _series(self, name: str, kind: str, labels: dict[str, str], *, made: bool = True) -> MetricWrapperBase | None:
        found = self._metrics.get(name)
        if found is None or found[0].kind != kind:
            raise UnknownMetricError(f"there is no {kind} {name!r}")
        metric, wrapper = found
        given = {DEPLOYMENT: self.deployment, **labels}
        if set(given) != set(metric.labels):
            raise UnknownMetricError(f"metric {name!r} has the labels {metric.labels}, not {tuple(given)}")
        for label, text in labels.items():
            if text not in (metric.values or {})[label]:
                raise UnknownMetricError(f"metric {name!r}: {label} is never {text!r}")
        ordered = tuple(given[label] for label in metric.labels)
        if not made:
            wrapper.remove_by_labels(given)
            return None
        return wrapper.labels(*ordered)

    def _make(self, metric: Metric) -> MetricWrapperBase:
        made = super()._make(metric)
        if metric.kind == "counter":
            for value in (metric.values or {}).get(metric.labels[-1], ("",)):
                made.labels(self.deployment, *([value] if value else []))
        return made
