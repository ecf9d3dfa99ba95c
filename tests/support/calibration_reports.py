"""Calibrate reports made of synthetic values, for tests of what draws and checks reports. No model is behind them."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np

from app.kinds.calibrate.report import CalibrateReport
from app.kinds.calibrate.request import CALIBRATORS
from tests.support.reports import compare_report, draw

Json = dict[str, Any]
SHARES = dict(zip(CALIBRATORS, (0.03, 0.05, 0.02, 0.26, 0.31, 0.313), strict=True))
COSTS = dict(zip(CALIBRATORS, (1.0, 2.2, 1.4, 3.1, 5.2, 6.4), strict=True))
BLOCKS = ("divergence", "top1_agreement", "perplexity", "entropy", "domains", "nonfinite_positions")


def mean(value: float, half: float, clusters: str = "documents") -> Json:
    return {"mean": value, "ci": [value - half, value + half], "clusters": clusters}


def cell(raw: float, share: float, tokens: int, documents: int) -> Json:
    return {
        "tokens": tokens,
        "documents": documents,
        "raw": mean(raw, 0.09 * raw),
        "calibrated": mean(raw * (1 - share), 0.09 * raw),
        "saved": mean(raw * share, 0.04 * raw, "documents" if documents > 5 else "windows"),
        "saved_share": share,
    }


def before(raw: float, change: float, reference: float | None = None) -> Json:
    return {
        "reference": None if reference is None else mean(reference, 0.01),
        "raw": mean(raw, 0.01),
        "calibrated": mean(raw + change, 0.01),
        "change": mean(change, abs(change) / 4),
    }


def calibrate_report(
    *,
    passed: bool = True,
    deployment: str | None = "smollm2-rtn4",
    domains: tuple[str, ...] = ("prose", "dialogue", "code", "mathematics", "json", "german"),
    unfitted: tuple[str, ...] = (),
    documents: int = 60,
    seed: int = 0,
    chosen: str = "lowrank+confidence",
) -> Json:
    """A report as JSON data, valid by its contract."""
    values = draw(mean=0.225, domains=domains, documents=documents, seed=seed)
    now = compare_report(values, store_text=False)
    was = compare_report(draw(mean=0.326, domains=domains, documents=documents, seed=seed), store_text=False)
    rng = np.random.default_rng(seed)
    fitted = [name for name in domains if name not in unfitted]
    table = []
    for name in CALIBRATORS:
        own = {
            domain: cell(
                0.2 + 0.05 * index,
                (SHARES[name] * float(rng.uniform(0.7, 1.2)) if passed or domain != domains[-1] else -0.04)
                * (0.45 if domain in unfitted else 1.0),
                1600,
                documents // len(domains),
            )
            for index, domain in enumerate(domains)
        }
        table.append(
            {
                "calibrator": name,
                "chosen": name == chosen,
                "own": cell(0.326, SHARES[name], 1600 * len(fitted), documents),
                "other": cell(0.3, SHARES[name] * 0.4, 1600, 8) if unfitted else None,
                "domains": own,
                "choose_kl": 0.326 * (1 - SHARES[name]),
                "microseconds_per_token": COSTS[name],
                "bytes": 1000 + 290_000 * ("lowrank" in name),
                "parameters": {"parts": name.count("+") + 1},
            }
        )
    reasons: tuple[str, ...] = (
        ()
        if passed
        else (
            f"on domain {domains[-1]} the correction changes KL by +0.018 nats; the upper 95 % limit, "
            "+0.024, is not below 0.002 nats (the tolerance)",
        )
    )
    test = {
        "frozen": "e7" * 32,
        "opened_at": 1795612280.1,
        "tolerance": 0.005,
        "passed": passed,
        "reasons": reasons,
        "table": table,
        "effects": {
            "top1_agreement": before(0.741, 0.032),
            "tv": before(0.27, -0.05),
            "entropy": before(2.51, 0.08, 2.64),
            "loss": before(3.02, -0.06, 2.81),
        },
        "kl_high": 0.244,
        "raw_kl_high": 0.354,
    }
    served = "cal-3f9c2a7be1d04c58"
    report = {name: now[name] for name in BLOCKS} | {
        "schema": "hemostat.report/1",
        "kind": "calibrate",
        "job": now["job"],
        "severity": now["severity"],
        "verdict": "Proven: lowrank+confidence takes 31 % of the KL away on test documents."
        if passed
        else f"Not served: lowrank+confidence takes 31 % of the KL away on test documents, but {reasons[0]}. Identity "
        "is served.",
        "decision": now["decision"],
        "tokens": now["tokens"],
        "documents": now["documents"],
        "windows": now["windows"],
        "noise_floor": now["noise_floor"],
        "raw": {name: was[name] for name in BLOCKS},
        "raw_severity": was["severity"],
        "calibrator": chosen,
        "profile": served,
        "served": served if passed else "identity",
        "deployment": deployment,
        "test": test,
        "sets": [
            {
                "name": name,
                "documents": count,
                "tokens": 170 * count,
                "domains": dict.fromkeys(fitted if name != "test" else domains, 170),
                "fingerprint": digit * 64,
            }
            for name, count, digit in (("fit", 110, "a"), ("choose", 28, "b"), ("test", documents, "c"))
        ],
        "not_tested": now["not_tested"],
        "warnings": now["warnings"],
        "request": {
            "kind": "calibrate",
            "reference": {"model": "smollm2-135m"},
            "candidate": now["request"]["candidate"] if now.get("request") else {"model": "smollm2-135m", "recipe": []},
            "text": {"source": "shipped", "corpus": "calibration", "documents": None},
            "test_text": None,
            "fit_domains": None,
            "tokens": 25000,
            "calibrators": list(CALIBRATORS),
            "tolerance": 0.005,
            "window": 512,
            "seed": seed,
            "deployment": deployment,
        },
        "provenance": now["provenance"],
    }
    checked: Json = json.loads(CalibrateReport.model_validate(report).model_dump_json())
    return checked


@cache
def calibration_variants() -> dict[str, Json]:
    """One report for each situation that the page must be able to show. Made once: do not change them."""
    hostile = ("<script>alert(1)</script>"[1:7], "a" * 60, "b.c")
    bare = calibrate_report(deployment=None)
    return {
        "proven": calibrate_report(),
        "refused": calibrate_report(passed=False),
        "unfitted": calibrate_report(unfitted=("german", "code")),
        "few": calibrate_report(documents=8, domains=("prose", "code")),
        "long": calibrate_report(domains=hostile, documents=18),
        "bare": bare | {"test": bare["test"] | {"effects": None}, "request": None, "not_tested": []},
    }
