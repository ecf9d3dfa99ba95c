"""The books as metrics."""

from __future__ import annotations

from app.contracts.deployment import DriftState, Interval, ServedDivergence
from app.contracts.request import Thresholds
from workers.calibration.online.monitor import Monitor
from workers.calibration.online.rescore import Batch
from workers.telemetry_shadow import LIMITS, STAGES, ShadowTelemetry

_THRESHOLDS = Thresholds()


def export_batch(telemetry: ShadowTelemetry, batch: Batch, now: float) -> None:
    """What one batch adds."""
    for scored in batch.scored:
        telemetry.add("shadow_scored_requests")
        telemetry.add("shadow_scored_tokens", scored.tokens)
        for stage, kl_T in scored.kl.items():
            telemetry.record("served_kl_nats", kl_T.tolist(), stage=stage)
    for reason, count in batch.skipped.items():
        telemetry.add("shadow_skipped", count, reason=reason)
    if batch.engine_term_missing:
        telemetry.add("shadow_engine_term_missing", batch.engine_term_missing)
    if batch.scored:
        telemetry.set("shadow_lag_seconds", max(0.0, now - max(scored.at for scored in batch.scored)))


def export_monitor(telemetry: ShadowTelemetry, book: Monitor) -> None:
    """What holds now. A number that is not known has no series."""
    state, drift = book.state, book.drift()
    divergence = book.divergence()
    _export_divergence(telemetry, divergence)
    for each in DriftState:
        telemetry.set("drift_state", float(each is drift), state=each.value)
    for limit in LIMITS:
        telemetry.set("drift_alarm_active", float(limit in book.holding()), limit=limit)
    telemetry.set("drift_threshold_nats", state.threshold)
    telemetry.set("drift_quiet_limit_nats", book.quiet_limit)
    telemetry.set("drift_quiet_e_value", book.quiet_e_value)
    telemetry.set("drift_quiet_e_value_needed", book.quiet_e_value_needed)
    telemetry.set("drift_e_value", book.e_value)
    telemetry.set("drift_e_value_needed", book.e_value_needed)
    telemetry.set("drift_last_observation_timestamp_seconds", state.silence.observed_at)
    told = telemetry.value("drift_alarms") or 0.0
    if state.alarms > told:
        telemetry.add("drift_alarms", state.alarms - told)
    for outcome, ended in state.trials.items():
        told = telemetry.value("shadow_trials", outcome=outcome) or 0.0
        if ended > told:
            telemetry.add("shadow_trials", ended - told, outcome=outcome)
    telemetry.set("shadow_trial_requests", book.trial_seen)


def severity(kl: float) -> int:
    """0 none to 4 collapse: how many of the usual thresholds a mean KL has reached."""
    limits = (_THRESHOLDS.mild, _THRESHOLDS.moderate, _THRESHOLDS.severe, _THRESHOLDS.collapse)
    return sum(kl >= limit for limit in limits)


def _export_divergence(telemetry: ShadowTelemetry, found: ServedDivergence | None) -> None:
    stages: dict[str, Interval | None] = dict.fromkeys(STAGES)
    if found is not None:
        stages = {"raw": found.raw, "calibrated": found.calibrated, "engine": found.engine}
    for stage, interval in stages.items():
        telemetry.set("served_kl_mean_nats", interval.mean if interval else None, stage=stage)
        telemetry.set("served_kl_low_nats", interval.low if interval else None, stage=stage)
        telemetry.set("served_kl_high_nats", interval.high if interval else None, stage=stage)
    saved = found.saved if found else None
    telemetry.set("served_saved_mean_nats", saved.mean if saved else None)
    telemetry.set("served_saved_low_nats", saved.low if saved else None)
    telemetry.set("served_saved_high_nats", saved.high if saved else None)
    telemetry.set("served_top1_agreement_ratio", found.top1_agreement_raw if found else None, stage="raw")
    telemetry.set("served_top1_agreement_ratio", found.top1_agreement_calibrated if found else None, stage="calibrated")
    telemetry.set("served_severity", float(severity(found.calibrated.mean)) if found else None)
