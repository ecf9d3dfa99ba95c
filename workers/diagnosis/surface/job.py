"""The `surface` job: every setting of two knobs against one reference, and what follows from the whole table.

Each knob alone is measured first, then both together, then the other order of the steps where it is asked for. Points
are kept as they are measured (`workers.diagnosis.points`): the attempt after a lost one measures none of them again.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from typing import Final

from app.contracts.report import SEVERITIES
from app.contracts.requests.surface import SurfaceRequest
from app.contracts.surface_report import SurfaceReport
from app.models.surfaces import Cell, cells_of
from workers.diagnosis.attempt import counted
from workers.diagnosis.context import JobContext
from workers.diagnosis.points.attempt import PointsAttempt
from workers.diagnosis.points.runner import Setting
from workers.diagnosis.surface.report import Found, build_report
from workers.engine.room import EngineRoom

RECIPE_FILE: Final = "recipe.json"
TABLE_FILE: Final = "surface.csv"


def surface(request: SurfaceRequest, context: JobContext, room: EngineRoom) -> SurfaceReport:
    """Runs the job and returns its report; the table and the chosen recipe go to `context.output`.

    Raises `HemostatError` for what request, models or machine do not allow, `JobCancelled` when told to stop.
    """
    with counted(room, context):
        return _Surface(request, context, room).run()


def help_surface(request: SurfaceRequest, context: JobContext, room: EngineRoom) -> None:
    """Measures settings of a surface that another worker runs, until none is left to take. Raises as `surface`."""
    with counted(room, context):
        _Surface(request, context, room).help()


class _Surface(PointsAttempt):
    """One attempt at one surface job."""

    def __init__(self, request: SurfaceRequest, context: JobContext, room: EngineRoom) -> None:
        super().__init__(request, context, room)
        self._request = request

    def run(self) -> SurfaceReport:
        request, context, watch = self._request, self._context, self._watch
        cells = cells_of(request)
        with self.ground() as ground:
            runner = self.runner(ground, total=len(cells))
            with watch.phase("points"):
                measured = runner.measure(_settings(cells))
            records = [record for record in measured if record is not None]  # it waited for all of them
            context.check_cancelled()
            with watch.phase("statistics"):
                context.progress("statistics", 0, 1)
                report = build_report(
                    Found(request, ground, cells, records, runner.resumed, self._started_at, watch.seconds), context
                )
        with watch.phase("report"):
            (context.output / TABLE_FILE).write_text(_csv(report), encoding="utf-8")
            (context.output / RECIPE_FILE).write_text(
                json.dumps(list(report.chosen.recipe), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
            )
            _export_metrics(report, request, context)
            context.progress("report", 1, 1)
        return report

    def help(self) -> None:
        """What another worker's attempt has not begun."""
        cells = cells_of(self._request)
        with self.ground() as ground:
            if ground.shared:
                self.runner(ground, total=len(cells)).measure(_settings(cells), wait=False)


def _settings(cells: Sequence[Cell]) -> list[Setting]:
    return [Setting((cell.first, cell.second, cell.order), cell.recipe) for cell in cells]


def _csv(report: SurfaceReport) -> str:
    """Every setting in a line, for spreadsheets and plots."""
    one, other = (f"{knob.step}.{knob.field}" for knob in report.knobs)
    lines = [f"{one},{other},order,bytes,sparse_bytes,perplexity,kl,kl_low,kl_high,interaction,low,high"]
    found = {(row.first, row.second, row.order): row.nats for row in report.interactions}
    for point in report.points:
        values = [
            json.dumps(knob.values[place])
            for knob, place in zip(report.knobs, (point.first, point.second), strict=True)
        ]
        kl, nats = point.kl, found.get((point.first, point.second, point.order))
        numbers = [point.bytes, point.sparse_bytes, point.perplexity, kl.mean, *(kl.ci or (None, None))]
        numbers += [None, None, None] if nats is None else [nats.mean, *(nats.ci or (None, None))]
        quoted = [f'"{value}"' if "," in value else value.replace("null", "") for value in values]
        lines.append(",".join([*quoted, point.order, *("" if number is None else str(number) for number in numbers)]))
    return "\n".join(lines) + "\n"


def _export_metrics(report: SurfaceReport, request: SurfaceRequest, context: JobContext) -> None:
    """The chosen setting's gauges, as a compare job of it would send them."""
    source = report.provenance.candidate
    labels = {
        "reference": request.reference.model,
        "model": request.candidate.model,
        "recipe": (source.recipe_fingerprint or "none")[:12],
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
        context.observe(name, math.nan if value is None else value, **labels)
    for severity, limit in report.decision.thresholds.model_dump().items():
        context.observe("kl_threshold_nats", limit, **labels, severity=severity)
