"""Mitigate reports made of synthetic values, for tests of what draws and checks reports. No model is behind them."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from app.kinds.mitigate.report import MitigateReport
from app.kinds.mitigate.request import TREATMENTS
from tests.support.calibration_reports import BLOCKS, mean
from tests.support.reports import compare_report, draw

Json = dict[str, Any]
RTN = {"type": "quantize.rtn", "bits": 3}
REPAIR = {"type": "repair.lowrank", "rank": 16}
DYNAMIC = {"type": "quantize.dynamic", "bits": 3.0, "mixed": True}
CANDIDATE_BYTES = 98_000_000


def treatment(name: str, **knobs: Any) -> Json:
    return {"name": name, "knobs": knobs}


def point(treatments: list[Json], recipe: list[Json], kl: float, size: int, *, recommended: bool = False) -> Json:
    return {
        "recipe": recipe,
        "treatments": treatments,
        "bytes": size,
        "bits_per_weight": 8 * size / 134_515_008,
        "kl": mean(kl, 0.06 * kl),
        "saved": mean(1.4 - kl, 0.08) if treatments else None,
        "tokens_per_second": 1412.0 - 20 * len(treatments),
        "tokens_per_second_range": (1380.0 - 20 * len(treatments), 1430.0 - 20 * len(treatments)),
        "added_latency": 0.014 * len(treatments) if treatments else None,
        "within_budget": True,
        "recommended": recommended,
        "weights_fingerprint": f"{len(treatments)}" * 64,
    }


def trial(number: int, treatments: list[Json], rung: str, outcome: str, saved: float | None, size: int) -> Json:
    measured = saved is not None
    return {
        "number": number,
        "treatments": treatments,
        "recipe": [RTN, REPAIR],
        "rung": rung,
        "expected_saved": 0.6,
        "outcome": outcome,
        "reason": "" if measured else "the model has no such layer",
        "bytes": size if measured else None,
        "kl": mean(1.4 - (saved or 0), 0.1) if measured else None,
        "saved": mean(saved or 0, 0.07) if measured else None,
        "seconds": 214.5 if measured else None,
    }


def mitigate_report(*, helped: bool = True, how: str = "restored", points: int = 4) -> Json:
    """A report as JSON data, valid by its contract."""
    now = compare_report(draw(mean=0.31 if helped else 1.4, documents=48))
    was = compare_report(draw(mean=1.4, documents=48))
    repair = treatment("repair.lowrank", rank=16, iterations=1)
    dynamic = treatment("quantize.dynamic", mixed=True, extra_bits=0.5, half_group=False)
    protect = treatment("protect", layers=4, by=2)
    front = [
        point([], [RTN], 1.4, CANDIDATE_BYTES),
        point([dynamic], [DYNAMIC], 0.72, 99_100_000),
        point([repair], [RTN, REPAIR], 0.55, 107_800_000),
        point([protect, dynamic, repair], [DYNAMIC, REPAIR], 0.31, 119_000_000, recommended=True),
    ]
    front = front[:1] if not helped else [*front[: points - 1], front[-1]]
    parts = [
        {
            "name": f"layers {first}–{first + 4}",
            "layers": list(range(first, first + 5)),
            "saved": mean(0.4 / (1 + first / 5), 0.05) if how == "restored" else None,
            "reconstruction_error": None if how == "unknown" else 0.24,
            "share": None if how == "unknown" else 0.4 / (1 + first / 5),
        }
        for first in range(0, 30, 5)
    ]
    verdict = (
        "Treated: the recommended recipe takes 77.9 % [75.8, 80] of the KL away on test documents, from 1.4 to 0.31 "
        "nats a token, for 21.4 % more bytes; the damage is severe, and was collapse."
        if helped
        else "Nothing helps: none of the recipes that were measured in full saves KL for sure within the budget. The "
        "candidate loses 1.4 nats a token on the test documents; leave it as it is."
    )
    report = {name: now[name] for name in BLOCKS} | {
        "schema": "hemostat.report/1",
        "kind": "mitigate",
        "job": now["job"],
        "severity": now["severity"],
        "verdict": verdict,
        "decision": now["decision"],
        "tokens": now["tokens"],
        "documents": now["documents"],
        "windows": now["windows"],
        "noise_floor": now["noise_floor"],
        "raw": {name: was[name] for name in BLOCKS},
        "raw_severity": was["severity"],
        "answer": "treated" if helped else "nothing_helps",
        "saved": mean(1.09, 0.06) if helped else None,
        "removed": mean(0.779, 0.021) if helped else None,
        "front": front,
        "recommended": [DYNAMIC, REPAIR] if helped else None,
        "rule": "Of the front within the budget, the one of lowest KL.",
        "budget": {"bytes": 122_500_000, "bits_per_weight": None, "added_latency": 0.1, "by_default": True},
        "candidate_bytes": CANDIDATE_BYTES,
        "damage": {
            "kl": mean(1.36, 0.09),
            "parts": [] if how == "unknown" else parts,
            "how": how,
            "note": "" if how == "restored" else "the candidate's weights are packed, so no part of it can be put back",
        },
        "trials": [
            trial(1, [dynamic], "cheap", "promoted", 0.66, 99_100_000),
            trial(2, [repair], "cheap", "promoted", 0.8, 107_800_000),
            trial(3, [treatment("norm.tweak", steps=20, learning_rate=1e-3)], "cheap", "no_gain", -0.02, 98_000_000),
            trial(
                4,
                [treatment("prune.gradient", budget="uniform", recovery_steps=200)],
                "cheap",
                "not_applicable",
                None,
                98_000_000,
            ),
            trial(5, [protect, dynamic, repair], "full", "front", 1.09, 119_000_000),
        ],
        "unhelpful": [
            {
                "treatment": "norm.tweak",
                "reason": "alone it saved nothing on the documents to choose by",
                "best_saved": -0.02,
            },
            {"treatment": "calibration", "reason": "no profile was fitted for this candidate", "best_saved": None},
        ],
        "profiles": [],
        "sets": [
            {
                "name": name,
                "documents": count,
                "tokens": 170 * count,
                "domains": {"prose": 170 * count},
                "fingerprint": digit * 64,
            }
            for name, count, digit in (("fit", 138, "a"), ("choose", 32, "b"), ("test", 48, "c"))
        ],
        "seal": {"frozen": "e7" * 32, "opened_at": 1795612280.1},
        "not_tested": now["not_tested"],
        "warnings": [],
        "request": {
            "kind": "mitigate",
            "reference": {"model": "smollm2-135m"},
            "candidate": {"model": "smollm2-135m", "recipe": [RTN]},
            "text": {"source": "shipped", "corpus": "evaluation", "documents": None},
            "calibration": {"source": "shipped", "corpus": "calibration", "documents": None},
            "budget": {"bytes": None, "bits_per_weight": None, "added_latency": 0.1},
            "treatments": list(TREATMENTS),
            "trials": 16,
            "window": 512,
            "seed": 0,
        },
        "provenance": now["provenance"],
    }
    checked: Json = json.loads(MitigateReport.model_validate(report).model_dump_json())
    return checked


@cache
def mitigate_variants() -> dict[str, Json]:
    """One report for each situation that the page must be able to show. Made once: do not change them."""
    return {
        "helped": mitigate_report(),
        "nothing": mitigate_report(helped=False, how="unknown"),
        "errors": mitigate_report(how="reconstruction_error", points=2),
        "bare": mitigate_report(helped=False) | {"trials": [], "unhelpful": [], "request": None, "not_tested": []},
    }
