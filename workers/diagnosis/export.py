"""What a finished comparison tells Prometheus."""

from __future__ import annotations

import math
import time

from app.contracts.attribute_report import AttributeReport
from app.contracts.report import SEVERITIES, CompareReport
from workers.diagnosis.context import JobContext
from workers.diagnosis.sides import Sides
from workers.distributions.token_values import TokenValues


def export_metrics(
    report: CompareReport | AttributeReport, values: TokenValues, sides: Sides, context: JobContext
) -> None:
    """Sends the gauges and the histogram of this comparison. Labels are aliases and the recipe's fingerprint."""
    labels = {
        "reference": sides.reference.alias,
        "model": sides.candidate.alias,
        "recipe": (sides.modified.manifest.recipe_fingerprint or "none")[:12],
    }
    kl = report.divergence.kl
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
    for name, value in gauges.items():
        # NaN says "not known"; left out, the last measurement's number would stay.
        context.observe(name, math.nan if value is None else value, **labels)
    for severity, limit in report.decision.thresholds.model_dump().items():
        context.observe("kl_threshold_nats", limit, **labels, severity=severity)
    context.observe_many("kl_nats", values.kl[values.finite].tolist(), **labels)
