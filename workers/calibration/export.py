"""What a finished calibrate job tells Prometheus."""

from __future__ import annotations

from app.kinds.calibrate.report import CalibrateReport
from workers.measuring.gauges import send
from workers.process.handler import JobContext


def export_metrics(report: CalibrateReport, context: JobContext) -> None:
    """Sends the gauges of this calibration. Labels are aliases and the recipe's fingerprint."""
    row = next(found for found in report.test.table if found.chosen)
    gauges = {"calibrate_saved_ratio": row.own.saved_share, "calibrate_passed": float(report.test.passed)}
    send(gauges, report.labels(), context)
    context.observe("calibrate_profiles", 1, outcome="passed" if report.test.passed else "refused")
