"""What a finished surface leaves beside its report: the table, the chosen recipe, and metrics."""

from __future__ import annotations

import csv
import io
import json
from typing import Final

from pydantic import JsonValue

from app.kinds.surface.report import SurfaceReport
from app.kinds.surface.request import SurfaceRequest
from workers.measuring.gauges import send, send_comparison
from workers.measuring.points.naming import swept_fingerprint
from workers.process.handler import JobContext

RECIPE_FILE: Final = "recipe.json"
TABLE_FILE: Final = "surface.csv"


def export(report: SurfaceReport, request: SurfaceRequest, context: JobContext) -> None:
    """Writes the artifacts and sends the metrics. There is no recipe to take where no changed setting is within."""
    (context.output / TABLE_FILE).write_text(_csv(report), encoding="utf-8")
    if report.chosen.within:
        (context.output / RECIPE_FILE).write_text(
            json.dumps(list(report.chosen.recipe), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    send_comparison(report, context)  # the chosen setting's gauges, as a compare job of it would send them
    _of_the_surface(report, request, context)


def _csv(report: SurfaceReport) -> str:
    """Every setting in a line, for spreadsheets and plots."""
    one, other = (f"{knob.step}.{knob.field}" for knob in report.knobs)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    measured = ("bytes", "sparse_bytes", "perplexity", "kl", "kl_low", "kl_high", "interaction", "low", "high")
    table.writerow([one, other, "order", *measured])
    found = {(row.first, row.second, row.order): row.nats for row in report.interactions}
    for point in report.points:
        values = [
            _value(knob.values[place]) for knob, place in zip(report.knobs, (point.first, point.second), strict=True)
        ]
        kl, nats = point.kl, found.get((point.first, point.second, point.order))
        numbers = [point.bytes, point.sparse_bytes, point.perplexity, kl.mean, *(kl.ci or (None, None))]
        numbers += [None, None, None] if nats is None else [nats.mean, *(nats.ci or (None, None))]
        table.writerow([*values, point.order, *("" if number is None else str(number) for number in numbers)])
    return text.getvalue()


def _value(value: JsonValue) -> str:
    """A knob's value in a cell: words as they are, lists as JSON, nothing where the step is left out."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _of_the_surface(report: SurfaceReport, request: SurfaceRequest, context: JobContext) -> None:
    """What is reported of both knobs together. The recipe of these labels is the one that was asked for, knobs
    included. So their series go on where the next surface chooses another setting."""
    labels = report.labels() | {"recipe": swept_fingerprint(request)[:12]}
    most = max(report.interactions, key=lambda row: abs(row.nats.mean or 0.0), default=None)
    departing = sum(row.kind in {"compounds", "overlaps"} for row in report.interactions)
    chosen = next(
        point
        for point in report.points
        if (point.first, point.second, point.order) == (report.chosen.first, report.chosen.second, report.chosen.order)
    )
    size = chosen.sparse_bytes if report.storage == "sparse" else chosen.bytes
    gauges = {
        "surface_interaction_nats": None if most is None else most.nats.mean,
        "surface_interaction_low_nats": None if most is None or most.nats.ci is None else most.nats.ci[0],
        "surface_interaction_high_nats": None if most is None or most.nats.ci is None else most.nats.ci[1],
        "surface_departing_ratio": departing / len(report.interactions) if report.interactions else None,
        "surface_within": float(report.chosen.within),
        "surface_chosen_bytes": None if size is None else float(size),
    }
    send(gauges, labels, context)
    refused = sum(bool(point.refused) for point in report.points)
    context.observe("surface_points", len(report.points) - refused, outcome="measured")
    context.observe("surface_points", refused, outcome="refused")
