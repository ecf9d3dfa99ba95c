"""What a finished calibrate job tells Prometheus."""

from __future__ import annotations

import math

from app.kinds.calibrate.report import CalibrateReport
from workers.measuring.sides import Sides
from workers.process.handler import JobContext


def export_metrics(report: CalibrateReport, sides: Sides, context: JobContext) -> None:
    """Sends the gauges of this calibration. Labels are aliases and the recipe's fingerprint."""
    labels = {
        "reference": sides.reference.alias,
        "model": sides.candidate.alias,
        "recipe": (sides.modified.manifest.recipe_fingerprint or "none")[:12],
    }
    row = next(found for found in report.test.table if found.chosen)
    share = row.own.saved_share
    context.observe("calibrate_saved_ratio", math.nan if share is None else share, **labels)
    context.observe("calibrate_passed", float(report.test.passed), **labels)
    context.observe("calibrate_profiles", 1, outcome="passed" if report.test.passed else "refused")
