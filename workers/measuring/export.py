"""What a finished comparison exports to Prometheus."""

from __future__ import annotations

from app.contracts.report import ComparedReport
from workers.distributions.token_values import TokenValues
from workers.measuring.gauges import send_comparison
from workers.process.handler import JobContext


def export_metrics(report: ComparedReport, values: TokenValues, context: JobContext) -> None:
    """Sends the gauges and the histogram of this comparison. Labels are aliases and the recipe's fingerprint."""
    send_comparison(report, context)
    context.observe_many("kl_nats", values.kl[values.finite].tolist(), **report.labels())
