"""What a finished sweep leaves beside its report: the curve as `hemostat threshold` takes it, and metrics."""

from __future__ import annotations

import json
import time

from app.contracts.report import SEVERITIES
from app.files import write_atomically
from app.kinds.sweep.report import SweepReport
from workers.diagnosis.sweep.course import Course
from workers.diagnosis.sweep.fits import curve_points
from workers.measuring.gauges import send
from workers.process.handler import JobContext

# The artifact with the curve.
CURVE_FILE = "curve.json"


def export(report: SweepReport, course: Course, context: JobContext) -> None:
    """Writes the curve, where the knob removes a share, and sends the gauges; `course` are the points of the report.

    Labels are aliases and the fingerprint of the recipe with its knob.
    """
    if all(point.s is not None for point in course.points):
        write_atomically(context.output / CURVE_FILE, json.dumps(curve(report, course), indent=1).encode())
    limit = report.largest_mild
    last = None if limit is None else limit.largest
    mild = next((point.s for point in report.points if last is not None and point.value == last.value), None)
    threshold = report.threshold
    known = threshold if threshold is not None and threshold.identifiable else None
    gauges = {
        "sweep_threshold_ratio": None if known is None else known.s0,
        "sweep_threshold_low_ratio": None if known is None else known.ci[0],
        "sweep_threshold_high_ratio": None if known is None else known.ci[1],
        "sweep_mild_ratio": mild,
        "severity": float(SEVERITIES.index(report.severity)),
        "last_measurement_timestamp_seconds": time.time(),
    }
    send(gauges, report.labels(), context)
    for outcome, count in (
        ("measured", sum(not point.refused for point in report.points)),
        ("refused", sum(bool(point.refused) for point in report.points)),
    ):
        context.observe("sweep_points", count, outcome=outcome)


def curve(report: SweepReport, course: Course) -> dict[str, object]:
    """Perplexity against s at the points that the form is fitted to, for `hemostat threshold`."""
    told = [(point.s, point.record.perplexity) for point in curve_points(course, "perplexity")]
    points = [
        [s, perplexity.candidate]
        for s, perplexity in told
        if perplexity is not None and perplexity.candidate is not None
    ]
    bounds = None if report.threshold is None else report.threshold.bounds
    return {"points": points, "bounds": bounds or {}, "dense": report.reference_perplexity}
