"""Attribute reports made of synthetic values, for tests of what draws and checks reports. No model is behind them."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from app.kinds.attribute.report import AttributeReport
from tests.support.calibration_reports import BLOCKS, mean
from tests.support.reports import compare_report, draw

Json = dict[str, Any]
TREATMENT = {
    "recipe": [
        {"type": "quantize.rtn", "bits": 4, "layers": [0, 1], "modules": ["mlp.up_proj"]},
        {"type": "quantize.gptq", "bits": 4, "layers": [1], "modules": ["mlp.down_proj"]},
    ],
    "why": "layers.1.mlp.down_proj: GPTQ, which moves the error to where it hurts less",
}


def site(name: str, nats: float, *, kind: str = "module", layer: int | None = 1, **changes: Any) -> Json:
    return {
        "name": name,
        "kind": kind,
        "layer": layer,
        "nats": nats,
        "ci": [nats * 0.9, nats * 1.1],
        "share": nats / 0.4,
        "share_ci": [nats / 0.45, nats / 0.36],
        "control": None,
        "isotropic_ratio": None,
        "cause": "unclear",
        "why": "not among the first parts: no twin was run for it",
        "tokens": 3900,
    } | changes


def first(name: str, nats: float, cause: str = "aligned", **changes: Any) -> Json:
    return site(
        name,
        nats,
        restored=mean(nats * 0.8, nats * 0.1),
        control=0.0,
        isotropic_ratio=3.1,
        isotropic_ci=[2.6, 3.7],
        cause=cause,
        why="3.1 times what noise of the same norm costs",
        evidence={"change": 0.11, "outlier_share": 0.06, "low_rank_share": 0.14, "zeros": 0.0},
        treatment=TREATMENT,
        **changes,
    )


def attribute_report(*, sites: list[Json] | None = None, swapped: bool = True, broken: bool = False) -> Json:
    """A report as JSON data, valid by its contract."""
    base = compare_report(draw(mean=0.4, documents=48))
    if sites is None:
        layers = [
            site(f"layers.{n}", nats, kind="layer", layer=n)
            for n, nats in enumerate(0.01 + 0.002 * (n % 7) for n in range(30))
        ]
        sites = [
            first("layers.1.mlp.down_proj", 0.18),
            first("layers.1.self_attn.heads.0", 0.05, "size", kind="heads"),
            *sorted(layers, key=lambda one: -one["nats"]),
        ]
    if broken:
        sites[0] = sites[0] | {"control": 0.003}
    names = [one["name"] for one in sites if one["control"] is not None]
    report = {key: base[key] for key in BLOCKS} | {
        "schema": "hemostat.report/1",
        "kind": "attribute",
        "job": base["job"],
        "severity": base["severity"],
        "verdict": "The worst part is layers.1.mlp.down_proj, which alone costs 45 % of the 0.4 nats a token.",
        "decision": base["decision"],
        "tokens": base["tokens"],
        "documents": base["documents"],
        "windows": base["windows"],
        "noise_floor": base["noise_floor"],
        "sites": sites if swapped else [],
        "whole": {"engine": mean(0.401, 0.02), "transformers": mean(0.4, 0.02), "difference": mean(0.001, 0.0004)},
        "explained": {
            "sites": names,
            "nats": mean(0.3, 0.02),
            "share": mean(0.75, 0.04),
            "restored": mean(0.28, 0.02),
            "restored_share": mean(0.7, 0.05),
        },
        "additivity": {
            "over": [f"layers.{n}" for n in range(30)],
            "total": mean(0.35, 0.02),
            "ratio": mean(1.14, 0.03),
        },
        "treatment": TREATMENT,
        "search": {
            "budget": 64.0,
            "spent": 41.3,
            "looked_into": 11.2,
            "considered": 300,
            "unchanged": 63,
            "untried": 0,
            "others": 0,
            "measured": 120,
            "seconds": 171.0,
        },
        "subset": {
            "windows": 30,
            "length": 130,
            "documents": 30,
            "positions": 3900,
            "control_positions": 1950,
            "twin_positions": 1950,
        },
        "not_tested": base["not_tested"],
        "warnings": [{"code": "control_changed", "text": "Swapping a part changed something."}] if broken else [],
        "request": {
            "kind": "attribute",
            "reference": {"model": "smollm2-135m"},
            "candidate": {"model": "smollm2-135m", "recipe": [{"type": "quantize.rtn", "bits": 4}]},
            "text": {"source": "shipped"},
            "levels": ["layer", "module"],
            "layers": [0, 1],
            "directions": ["swap"],
            "tokens": 4096,
            "budget": 64.0,
            "top": 8,
        },
        "provenance": base["provenance"],
    }
    if not swapped:
        report |= dict.fromkeys(("whole", "explained", "additivity", "treatment", "search", "subset"))
        report["not_swapped"] = "the models have 30 and 24 layers, so that parts have no counterpart of the same number"
    checked: Json = json.loads(AttributeReport.model_validate(report).model_dump_json(by_alias=True))
    return checked


@cache
def attribute_variants() -> dict[str, Json]:
    """One report for each situation that a page must be able to show. Made once: do not change them."""
    gap = site("dropped layers 7, 8", 0.3, kind="gap", layer=7, cause="removed", why="dropped", control=0.0)
    kept = [{"type": "prune.layers", "layers": [20, 21, 22, 23]}]
    gap |= {"treatment": {"recipe": kept, "why": "layers 7, 8 left in"}}
    return {
        "full": attribute_report(),
        "broken": attribute_report(broken=True),
        "other-depth": attribute_report(swapped=False) | {"sites": [gap]},
        "nothing-differs": attribute_report(sites=[]),
    }
