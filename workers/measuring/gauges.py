"""Gauges of a finished job: one number each for a comparison, and a value for what is not known."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from app.contracts.distances import DISTANCES
from app.contracts.report import SEVERITIES, ComparedReport
from workers.distributions.token_values import TokenValues
from workers.process.handler import JobContext


def send(gauges: Mapping[str, float | None], labels: Mapping[str, str], context: JobContext) -> None:
    """None goes out as NaN, "not known": left out, the last job's number would stay."""
    for name, value in gauges.items():
        context.observe(name, math.nan if value is None else value, **labels)


def send_comparison(report: ComparedReport, context: JobContext) -> None:
    """What every report says that compares one candidate with its reference."""
    kl, labels = report.divergence.kl, report.labels()
    gauges = {
        "kl_mean_nats": kl.mean,
        "kl_mean_low_nats": kl.ci[0] if kl.ci else None,
        "kl_mean_high_nats": kl.ci[1] if kl.ci else None,
        "top1_agreement_ratio": report.top1_agreement.mean,
        "perplexity_ratio": report.perplexity.ratio.mean,
        "severity": float(SEVERITIES.index(report.severity)),
        "nonfinite_positions": float(report.nonfinite_positions),
        "last_measurement_timestamp_seconds": time.time(),
    }
    send(gauges, labels, context)
    for distance in DISTANCES:
        send({"distance_mean": report.divergence.of(distance).mean}, {**labels, "distance": distance.name}, context)
    for severity, limit in report.decision.thresholds.model_dump().items():
        context.observe("kl_threshold_nats", limit, **labels, severity=severity)


def export_metrics(report: ComparedReport, values: TokenValues, context: JobContext) -> None:
    """Sends the gauges and the histogram of a comparison. Labels are aliases and the recipe's fingerprint."""
    send_comparison(report, context)
    context.observe_many("kl_nats", values.kl[values.finite].tolist(), **report.labels())
