"""What the worker exports of a finished mitigate job."""

import time

from app.kinds.mitigate.report import MitigateReport
from app.kinds.mitigate.request import MitigateRequest
from app.models.recipes import recipe_fingerprint
from workers.measuring.gauges import send
from workers.process.handler import JobContext


def tell(report: MitigateReport, request: MitigateRequest, context: JobContext) -> None:
    """Sends the gauges. The recipe of their labels is the candidate's own, so that their series go on where the next
    mitigation recommends another one."""
    full = [trial.saved.mean for trial in report.trials if trial.rung == "full" and trial.saved is not None]
    saved = report.saved
    low, high = (None, None) if saved is None or saved.ci is None else saved.ci
    gauges = {
        "mitigate_best_saved_nats": max((mean for mean in full if mean is not None), default=None),
        "mitigate_saved_nats": None if saved is None else saved.mean,
        "mitigate_saved_low_nats": low,
        "mitigate_saved_high_nats": high,
        "mitigate_helped": float(report.helped),
        # By it a dashboard tells the last of several workers' numbers.
        "mitigate_finished_timestamp_seconds": time.time(),
    }
    recipe = (recipe_fingerprint(request.candidate.recipe) or "none")[:12]
    send(gauges, report.labels() | {"recipe": recipe}, context)
