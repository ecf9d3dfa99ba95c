"""Surface reports made of drawn losses, for tests of what draws and checks reports. No model is behind them.

Losses of every setting are drawn by document and go through the arithmetic of the job, so that interactions, limits,
path and order effects of one report agree with its points.
"""

from __future__ import annotations

import json
import math
from functools import cache
from typing import Any

import numpy as np

from app.contracts.report import Divergence, Mean, Perplexity
from app.kinds.surface.plan import cells_of, zero_of
from app.kinds.surface.report import SurfaceReport
from app.kinds.surface.request import SurfaceRequest
from app.kinds.surface.words import sentence
from tests.support.calibration_reports import mean
from tests.support.reports import compare_report, draw
from workers.diagnosis.surface.report import _knob, _point
from workers.diagnosis.surface.table import Table
from workers.diagnosis.surface.warnings import warnings
from workers.measuring.points.record import PointRecord, WindowSums

Json = dict[str, Any]
TOKENS = 160
MIB = 2**20


def surface_request(
    *, sparsities: tuple[float, ...] = (0.2, 0.35, 0.5, 0.6, 0.7), bits: tuple[int, ...] = (8, 6, 4, 3), **fields: Any
) -> SurfaceRequest:
    """Magnitude pruning against rounding."""
    return SurfaceRequest.model_validate(
        {
            "kind": "surface",
            "reference": {"model": "smollm2-135m"},
            "candidate": {
                "model": "smollm2-135m",
                "recipe": [
                    {"type": "prune.magnitude", "sparsity": sparsities[0]},
                    {"type": "quantize.rtn", "bits": bits[0]},
                ],
            },
            "knobs": [
                {"step": 0, "field": "sparsity", "values": list(sparsities)},
                {"step": 1, "field": "bits", "values": list(bits)},
            ],
        }
        | fields
    )


def surface_table(
    request: SurfaceRequest,
    *,
    documents: int = 40,
    interaction: float = 0.8,
    order: float = 0.05,
    broken: tuple[tuple[int, int], ...] = (),
    refused: tuple[tuple[int, int], ...] = (),
    seed: int = 0,
) -> Table:
    """Drawn points: KL of each knob alone adds up, and `interaction` times their product comes on top; the exchanged
    order costs `order` times as much again. `broken` settings are not finite somewhere."""
    rng = np.random.default_rng(seed)
    hard = rng.lognormal(-0.1, 0.4, documents)
    base = rng.normal(3.0, 0.3, documents)
    records = []
    for cell in cells_of(request):
        sparsity = next((getattr(step, "sparsity", 0.0) for step in cell.recipe if hasattr(step, "sparsity")), 0.0)
        width = next((bits for step in cell.recipe if (bits := getattr(step, "bits", None))), 16)
        pruned, rounded = 2.2 * sparsity**4.5, 6.0 * 4.0**-width * 16 if width < 16 else 0.0
        kl = (pruned + rounded + interaction * math.sqrt(pruned * rounded)) * hard
        kl *= 1 + (order if cell.order == "reversed" else 0.0)
        jitter = 0.02 * kl * rng.normal(size=documents)
        where = (cell.first, cell.second)
        sums = WindowSums(
            tokens=(TOKENS,) * documents,
            kl=tuple(float(value) for value in TOKENS * np.maximum(kl + jitter, 0)),
            loss=tuple(float(value) for value in TOKENS * (base + kl + jitter)),
            reference_loss=tuple(float(value) for value in TOKENS * base),
        )
        if where in refused:
            records.append(PointRecord(refused="the model has no such layer"))
        else:
            records.append(_record(request, sums, sparsity, width, nonfinite=3 if where in broken else 0))
    return Table(request, cells_of(request), records, np.arange(documents))


def _record(request: SurfaceRequest, sums: WindowSums, sparsity: float, width: int, *, nonfinite: int) -> PointRecord:
    tokens = sum(sums.tokens)
    kl, loss, reference = (sum(column) / tokens for column in (sums.kl, sums.loss, sums.reference_loss))
    limits = request.thresholds.model_dump()
    reached = [name for name, limit in limits.items() if kl >= limit]
    block = {"median": kl / 2, "p90": 2 * kl, "p95": 3 * kl, "p99": 5 * kl, "p999": 8 * kl, "min": 0.0, "max": 12 * kl}
    around = mean(kl, 0.09 * kl)
    distances = dict.fromkeys(("kl", "reverse_kl", "js"), around | block)
    tv = mean(min(1.0, kl / 3), 0.01 * kl) | block | {"unit": "probability"}
    return PointRecord.model_validate(
        {
            "divergence": json.loads(Divergence(**distances, tv=tv).model_dump_json()),
            "top1_agreement": json.loads(Mean(**mean(1 / (1 + kl), 0.01)).model_dump_json()),
            "perplexity": json.loads(
                Perplexity(
                    reference=math.exp(reference),
                    candidate=math.exp(loss),
                    ratio=mean(math.exp(loss - reference), 0.09 * kl * math.exp(loss - reference)),
                ).model_dump_json()
            ),
            "severity": "collapse" if nonfinite else (reached[-1] if reached else "none"),
            "classes": (),
            "nonfinite_positions": nonfinite,
            "sums": sums.model_dump(),
            "weights_fingerprint": f"{round(loss * 1e12):064x}",
            "bytes": round(257 * MIB * width / 16),
            "sparse_bytes": round(257 * MIB * (width * (1 - sparsity) + bool(sparsity)) / 16),
            "bits_per_weight": float(width),
            "scheme": "simulated",
        }
    )


def surface_report(request: SurfaceRequest | None = None, **drawn: Any) -> Json:
    """A report as JSON data, valid by its contract."""
    asked = request or surface_request()
    table = surface_table(asked, **drawn)
    chosen = table.chosen()
    cell, record = table.cells[chosen], table.sized[chosen]
    frame = compare_report(draw(mean=max(1e-6, record.divergence.kl.mean or 0.0), documents=40), store_text=False)
    interactions = table.interactions()
    point = _point(table, chosen)
    provenance = frame["provenance"]
    provenance["candidate"] |= {
        "recipe": list(point.recipe),
        "bytes": point.bytes,
        "bits_per_weight": point.bits_per_weight,
        "weights_fingerprint": point.weights_fingerprint,
    }
    kept = ("tokens", "documents", "windows", "noise_floor", "decision", "not_tested", "severity")
    report = {name: frame[name] for name in kept} | {
        "schema": "hemostat.report/1",
        "kind": "surface",
        "job": "diag_01M89D9HJWGEE9A2EB6NKQX32W",
        "verdict": "",
        "divergence": record.divergence.model_dump(),
        "top1_agreement": record.top1_agreement.model_dump(),
        "perplexity": record.perplexity.model_dump(),
        "nonfinite_positions": record.nonfinite_positions,
        "knobs": [_knob(asked, axis).model_dump() for axis in table.axes],
        "zero": zero_of(asked),
        "orders": ["as given", "reversed"] if asked.orders == "both" else ["as given"],
        "points": [_point(table, index).model_dump() for index in range(len(table.cells))],
        "interactions": [row.model_dump() for row in interactions],
        "margin": asked.additive_margin,
        "contour": table.contour().model_dump(),
        "storage": asked.storage,
        "path": [row.model_dump() for row in table.path()],
        "order_effects": [row.model_dump() for row in table.order_effects()],
        "chosen": {
            "first": cell.first,
            "second": cell.second,
            "order": cell.order,
            "within": table.within(chosen) == "yes",
            "recipe": list(point.recipe),
        },
        "warnings": [one.model_dump(mode="json") for one in warnings(table)],
        "request": json.loads(asked.model_dump_json()),
        "provenance": provenance,
    }
    made = SurfaceReport.model_validate(report)
    return dict(json.loads(made.model_copy(update={"verdict": sentence(made)}).model_dump_json()))


@cache
def _variants() -> str:
    one_step = [
        {"step": 0, "field": "bits", "values": [8, 6, 4, 3]},
        {"step": 0, "field": "group_size", "values": [32, 64, None]},
    ]
    rtn = {"model": "smollm2-135m", "recipe": [{"type": "quantize.rtn", "bits": 8, "group_size": 32}]}
    return json.dumps(
        {
            "both-orders": surface_report(surface_request(orders="both")),
            "adds-up": surface_report(surface_request(margin=0.25), interaction=0.0),
            "wide": surface_report(
                surface_request(
                    sparsities=tuple(round(0.08 * index, 2) for index in range(1, 11)),
                    bits=(8, 5, 3),
                    contour={"measure": "perplexity_ratio", "level": 1.1},
                )
            ),
            "broken": surface_report(broken=((5, 4), (0, 4)), refused=((5, 0),), documents=4),
            "none-within": surface_report(
                surface_request(contour={"measure": "perplexity", "level": 2.0}, storage="dense")
            ),
            "nothing-changed-within": surface_report(
                surface_request(contour={"measure": "kl", "level": 0.0005}, orders="both"), documents=8
            ),
            "one-step": surface_report(surface_request(knobs=one_step, candidate=rtn)),
        }
    )


def surface_variants() -> dict[str, Json]:
    """One report of every kind that looks different."""
    found: dict[str, Json] = json.loads(_variants())
    return found


def surface_variant(name: str) -> SurfaceReport:
    """One of the reports, validated."""
    return SurfaceReport.model_validate(surface_variants()[name])


def departing(kinds: dict[tuple[str, str], int]) -> SurfaceReport:
    """A report of both orders with so many interactions of a kind in each: −0.1 where they overlap, +0.04 else."""
    found = surface_variant("both-orders")
    left, rows = dict(kinds), []
    for row in found.interactions:
        kind = next((kind for (order, kind), count in left.items() if count and order == row.order), None)
        if kind is not None:
            left[row.order, kind] -= 1
        nats = row.nats.model_copy(update={"mean": {"overlaps": -0.1, "compounds": 0.04}.get(kind, 0.001)})
        rows.append(row.model_copy(update={"kind": kind or "no_departure_shown", "nats": nats}))
    return found.model_copy(update={"interactions": tuple(rows)})
