"""What a finished comparison tells Prometheus."""

from __future__ import annotations

from app.contracts.report import ComparedReport
from workers.distributions.token_values import TokenValues
from workers.measuring.gauges import labels_of, send_comparison
from workers.measuring.sides import Sides
from workers.process.handler import JobContext


def export_metrics(report: ComparedReport, values: TokenValues, sides: Sides, context: JobContext) -> None:
    """Sends the gauges and the histogram of this comparison. Labels are aliases and the recipe's fingerprint."""
    labels = labels_of(sides)
    send_comparison(report, labels, context)
    context.observe_many("kl_nats", values.kl[values.finite].tolist(), **labels)
