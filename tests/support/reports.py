"""Compare reports made of synthetic per-token values, for tests of what draws and checks reports.

No model is behind them. The values are drawn (lognormal KL with document effects, everything else derived from it by
rough rules) and summarized plainly, so that the numbers of one report agree with each other as a real one's do.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contracts.distances import DISTANCES, Distance
from app.contracts.report import SEVERITIES
from app.contracts.request import Thresholds
from app.kinds.compare.report import CompareReport
from tests.support.report_texts import passages, pieces_of, provenance, worst

Floats = NDArray[np.float64]
Json = dict[str, Any]

DOMAINS = ("prose", "dialogue", "code", "mathematics", "json", "german")
HOSTILE = (
    "<script>alert(1)</script>",
    "</title><img src=x onerror=alert(1)>",
    "\u202egnp.exe",
    "مرحبا",
    " بالعالم",
    "你好",
    "，世界",
    "👩\u200d🔬",
    "\n",
    "\t",
    "\x1b[31mred\x07",
    "\x00",
    "{{ 7*7 }}",
    "{% raw %}",
    "&amp;",
    '" onmouseover="x',
    "' --",
    "a" * 300,
    "\ufffd",
    "Z\u0351\u036b\u0343a\u0322\u0319",
    "   ",
    "\u2028",
    "\ud7ff",
    "ſ",
    "`$(rm -rf ~)`",
)


@dataclass
class Tokens:
    """Per-token values of one synthetic comparison."""

    document: NDArray[np.int64]
    domain: NDArray[np.int64]
    position: NDArray[np.int64]
    confidence: Floats
    kl: Floats
    reverse_kl: Floats
    js: Floats
    tv: Floats
    delta_p: Floats
    logp_reference: Floats
    logp_candidate: Floats
    top1: Floats
    overlap5: Floats
    overlap10: Floats
    rank: Floats
    names: tuple[str, ...] = field(default=DOMAINS)


def draw(
    *, mean: float = 0.32, documents: int = 60, domains: tuple[str, ...] = DOMAINS, tokens: int = 180, seed: int = 0
) -> Tokens:
    """Draws `documents` documents of about `tokens` tokens with a mean KL of about `mean` nats."""
    rng = np.random.default_rng(seed)
    domains = domains[:documents]
    lengths = rng.integers(tokens // 2, tokens * 3 // 2, documents)
    document = np.repeat(np.arange(documents), lengths)
    domain_of = np.arange(documents) % len(domains)
    effect = np.exp(rng.normal(-0.08, 0.4, documents) + np.linspace(-0.5, 0.5, len(domains))[domain_of])
    total = int(lengths.sum())
    confidence = rng.beta(0.9, 0.6, total)
    kl = effect[document] * np.exp(rng.normal(0, 1.6, total)) * (1.15 - confidence)
    kl *= mean / kl.mean() if mean else 0.0
    kl = np.minimum(kl, 18.0)
    tv = np.minimum(0.98, np.sqrt(kl / 2) * 0.8)
    delta_p = np.clip(rng.normal(-0.25, 0.6, total) * tv, -1, 1)
    logp_reference = -rng.exponential(2.6, total)
    shift = kl * rng.normal(0.85, 1.0, total)
    flips = rng.random(total) < np.minimum(0.9, tv * 0.9 * (1.1 - confidence))
    return Tokens(
        document=document,
        domain=domain_of[document],
        position=np.concatenate([np.arange(length) for length in lengths]),
        confidence=confidence,
        kl=kl,
        reverse_kl=kl * np.exp(rng.normal(0.03, 0.25, total)),
        js=np.minimum(math.log(2), kl * 0.22),
        tv=tv,
        delta_p=delta_p,
        logp_reference=logp_reference,
        logp_candidate=logp_reference - shift,
        top1=1.0 - flips,
        overlap5=np.clip(1 - np.round(tv * 4) / 5, 0, 1),
        overlap10=np.clip(1 - np.round(tv * 8) / 10, 0, 1),
        rank=1.0 + flips * rng.geometric(0.5, total),
        names=domains,
    )


def compare_report(
    values: Tokens | None = None,
    *,
    store_text: bool = True,
    nonfinite: int = 0,
    kernel: bool = False,
    floor: float = 0.0,
    tokens: tuple[str, ...] | None = None,
    reference: str = "smollm2-135m",
    candidate: str = "smollm2-135m",
    recipe: tuple[Json, ...] = ({"type": "quantize.rtn", "bits": 4, "group_size": 64, "symmetric": False},),
    text: Json | None = None,
    warnings: tuple[str, ...] = (),
    thresholds: Thresholds | None = None,
) -> Json:
    """A report as JSON data, valid by its contract."""
    values = values if values is not None else draw()
    thresholds = thresholds or Thresholds()
    edges = (thresholds.mild, thresholds.moderate, thresholds.severe, thresholds.collapse)
    excess = _mean(values.kl - floor, values.document)
    low, high = excess["ci"] or (0.0, math.inf)
    touched = tuple(SEVERITIES[index] for index in range(_class(low, edges), _class(high, edges) + 1))
    if nonfinite:
        touched = ("collapse",)
    severity = touched[-1] if excess["ci"] else SEVERITIES[_class(excess["mean"], edges)]
    text = text or {"source": "shipped"}
    half = (high - low) / 2 if excess["ci"] else 0.0
    report = {
        "schema": "hemostat.report/1",
        "job": "diag_01jq4m8zt2k6v",
        "severity": severity,
        "verdict": _sentence(severity, excess, touched, nonfinite),
        "decision": {
            "severity": severity,
            "classes": touched,
            "conclusive": len(touched) == 1,
            "rule": "The class is the one that holds the 95 % interval of the mean excess KL over the noise floor; an "
            "interval that crosses a limit is inconclusive; any non-finite value is a collapse.",
            "thresholds": thresholds.model_dump(),
            "excess_kl": excess,
            "minimum_detectable_effect": 2.8 * half / 1.96 if excess["ci"] else None,
            "smallest_detectable_excess": 0.05 * floor if excess["ci"] else None,
            "tokens_to_decide": None if len(touched) == 1 or not excess["ci"] else int(len(values.kl) * 3.4),
        },
        "tokens": len(values.kl),
        "documents": int(values.document.max()) + 1,
        "windows": int(values.document.max()) + 1,
        "divergence": _divergence(values, slice(None)),
        "noise_floor": {
            "kl": _distribution(np.full(4096, floor) * np.linspace(0, 2, 4096), np.arange(4096) % 60),
            "tokens": 4096,
            "batch_shapes": (8, 3),
        },
        "delta_p": _delta_p(values, slice(None)),
        "perplexity": _perplexity(values, slice(None)),
        "top1_agreement": _mean(values.top1, values.document),
        "agreement": _agreement(values, slice(None)),
        "entropy": _entropy(values, slice(None)),
        "domains": {name: _domain(values, values.domain == index) for index, name in enumerate(values.names)},
        "by_position": _bands(values, values.position, [0, 16, 64, 256, 512]),
        "by_confidence": _bands(values, values.confidence, [0.0, 0.25, 0.5, 0.75, 0.95, 1.0]),
        "token_classes": _token_classes(values),
        "histogram": _histogram(values.kl),
        "worst_tokens": worst(values, pieces_of(tokens) if store_text else None),
        "passages": passages(values, tokens) if store_text else (),
        "nonfinite_positions": nonfinite,
        "not_tested": (
            {
                "code": "free_running_generation",
                "text": "text generated freely: only next-token distributions after given text were compared",
            },
            {"code": "long_context", "text": "contexts longer than the window of 512 tokens"},
            {"code": "other_domains", "text": "languages and tasks that the text does not hold"},
        ),
        "warnings": tuple({"code": "few_documents", "text": warning} for warning in warnings),
        "request": {
            "kind": "compare",
            "reference": {"model": reference},
            "candidate": {"model": candidate, "recipe": list(recipe)},
            "text": text,
            "window": 512,
            "seed": 0,
            "precision": "fast",
            "thresholds": thresholds.model_dump(),
            "store_text": None,
        },
        "provenance": provenance(reference, candidate, recipe, text),
    }
    if kernel:
        report["kernel_term"] = {
            "kl": _distribution(values.kl * 0.07, values.document),
            "tokens": len(values.kl),
            "scheme": "w8a8",
        }
    return as_json(report)


def nothing_finite() -> Json:
    """The report of a candidate that gave no finite value at all: counts, and no number."""
    report = compare_report(draw(documents=6), nonfinite=1040, store_text=False)

    def blank(block: Any) -> Any:
        if not isinstance(block, dict):
            return block
        if "mean" in block:
            kept = ("unit",)
            return {key: value if key in kept else None for key, value in block.items()}
        return {key: blank(value) for key, value in block.items()}

    for name in ("divergence", "delta_p", "top1_agreement", "agreement", "entropy"):
        report[name] = blank(report[name])
    report["perplexity"] = blank(report["perplexity"]) | {"candidate": None}
    report["decision"]["excess_kl"] = {"mean": None, "ci": None}
    report["decision"] |= {"minimum_detectable_effect": None, "smallest_detectable_excess": None}
    report["domains"] = {name: blank(block) | {"tokens": 0} for name, block in report["domains"].items()}
    report["histogram"] |= {"counts": [0] * len(report["histogram"]["counts"]), "below": 0, "above": 0}
    return as_json(report | {"tokens": 1040, "by_position": [], "by_confidence": [], "worst_tokens": []})


def as_json(report: Json) -> Json:
    """What the service would answer: checked by the contract, then through JSON."""
    checked: Json = json.loads(CompareReport.model_validate(report).model_dump_json())
    return checked


@cache
def variants() -> dict[str, Json]:
    """One report for each situation that a page must be able to show. Made once: do not change them."""
    long_name = "an-organisation.with-a-long-name-" + "x" * 60 + "-instruct-v2.1-preview-2026"
    return {
        "severe": compare_report(),
        "mild": compare_report(draw(mean=0.026, documents=80), warnings=("Few documents in the domain mathematics.",)),
        "inconclusive": compare_report(draw(mean=0.051, documents=24)),
        "collapse": compare_report(draw(mean=3.0), nonfinite=37),
        "no-text": compare_report(
            store_text=False, text={"source": "hub", "dataset": "example/set", "revision": "abc123"}
        ),
        "domains": compare_report(draw(documents=84, domains=tuple(f"domain {index + 1}" for index in range(12)))),
        "kernel": compare_report(draw(mean=0.006), kernel=True, candidate="smollm2-w8a8", recipe=(), floor=2e-5),
        "tiny": compare_report(draw(mean=1e-6), floor=4e-7),
        "identical": compare_report(draw(mean=0.0), recipe=()),
        "nothing-finite": nothing_finite(),
        "single": compare_report(draw(documents=1, domains=("prose",)), text={"source": "inline"}),
        "hostile": compare_report(
            draw(domains=("prose", "code")),
            tokens=HOSTILE,
            reference=long_name,
            candidate=long_name,
            warnings=("<b>not bold</b> \x1b[1m\u202e",),
            text={"source": "inline"},
        ),
    }


def _class(value: float, edges: tuple[float, ...]) -> int:
    return sum(value >= edge for edge in edges)


def _sentence(severity: str, excess: Json, touched: tuple[str, ...], nonfinite: int) -> str:
    if nonfinite:
        return f"The candidate has collapsed: {nonfinite} positions gave values that are not finite."
    sure = severity.capitalize() if len(touched) == 1 else f"Inconclusive, {touched[0]} to {touched[-1]}"
    return f"{sure}: the candidate loses {excess['mean']:.3g} nats per token beyond the noise floor."


def _mean(values: Floats, document: NDArray[np.int64]) -> Json:
    """Mean and a plain cluster-robust normal interval."""
    clusters = np.unique(document)
    mean = float(values.mean())
    if len(clusters) < 2:
        return {"mean": mean, "ci": None, "clusters": None}
    residual = np.bincount(document, values - mean)[clusters]
    error = math.sqrt(float((residual**2).sum()) * len(clusters) / (len(clusters) - 1)) / len(values)
    return {"mean": mean, "ci": (mean - 1.96 * error, mean + 1.96 * error), "clusters": "documents"}


def _distribution(values: Floats, document: NDArray[np.int64], unit: str = "nats") -> Json:
    points = dict(
        zip(("median", "p90", "p95", "p99", "p999"), np.quantile(values, [0.5, 0.9, 0.95, 0.99, 0.999]), strict=True)
    )
    return (
        _mean(values, document)
        | {key: float(value) for key, value in points.items()}
        | {
            "min": float(values.min()),
            "max": float(values.max()),
            "unit": unit,
        }
    )


def _divergence(values: Tokens, where: Any) -> Json:
    document = values.document[where]
    return {of.name: _distribution(_drawn(values, of)[where], document, of.unit) for of in DISTANCES}


def _drawn(values: Tokens, distance: Distance) -> Floats:
    """A distance that only a test knows is drawn as TV is."""
    drawn: Floats = getattr(values, distance.name, values.tv)
    return drawn


def _delta_p(values: Tokens, where: Any) -> Json:
    column = values.delta_p[where]
    low = np.quantile(column, [0.001, 0.01, 0.05, 0.1])
    return _distribution(column, values.document[where], "probability") | {
        **{key: float(value) for key, value in zip(("p001", "p01", "p05", "p10"), low, strict=True)},
        "rms": float(np.sqrt((column**2).mean())),
    }


def _agreement(values: Tokens, where: Any) -> Json:
    document = values.document[where]
    return {
        "top1": _mean(values.top1[where], document),
        "top5_overlap": _mean(values.overlap5[where], document),
        "top10_overlap": _mean(values.overlap10[where], document),
        "expected_rank": _mean(values.rank[where], document),
    }


def _entropy(values: Tokens, where: Any) -> Json:
    document, entropy = values.document[where], 3.1 * (1.2 - values.confidence[where])
    return {
        "reference": _mean(entropy, document),
        "candidate": _mean(entropy + 0.1 * values.kl[where], document),
    }


def _ratio(values: Tokens, where: Any) -> Json:
    difference = _mean((values.logp_reference - values.logp_candidate)[where], values.document[where])
    ci = difference["ci"]
    return {"mean": math.exp(difference["mean"]), "ci": ci and tuple(math.exp(bound) for bound in ci)}


def _perplexity(values: Tokens, where: Any) -> Json:
    return {
        "reference": math.exp(-float(values.logp_reference[where].mean())),
        "candidate": math.exp(-float(values.logp_candidate[where].mean())),
        "ratio": _ratio(values, where),
    }


def _domain(values: Tokens, where: Any) -> Json:
    return {
        "tokens": int(where.sum()),
        "documents": len(np.unique(values.document[where])),
        "divergence": _divergence(values, where),
        "top1_agreement": _mean(values.top1[where], values.document[where]),
        "perplexity": _perplexity(values, where),
        "delta_p": _delta_p(values, where),
        "agreement": _agreement(values, where),
        "entropy": _entropy(values, where),
    }


def _bands(values: Tokens, of: NDArray[Any], edges: list[float]) -> list[Json]:
    bands = []
    for low, high in pairwise(edges):
        where = (of >= low) & (of < high)
        if where.any():
            document = values.document[where]
            bands.append(
                {
                    "low": low,
                    "high": high,
                    "tokens": int(where.sum()),
                    "documents": len(np.unique(document)),
                    "share": float(where.mean()),
                    **{of.name: _mean(_drawn(values, of)[where], document) for of in DISTANCES},
                    "top1_agreement": _mean(values.top1[where], document),
                    "perplexity_ratio": _ratio(values, where),
                }
            )
    return bands


def _token_classes(values: Tokens) -> Json:
    """Three classes of the kind that reports have: one that loses more, one that loses less, one of few tokens."""
    order = np.argsort(np.argsort(values.kl))
    masks = {
        "numbers": order % 7 > 4,
        "punctuation": order < len(order) // 4,
        "tool_name": order >= len(order) - 12,
    }
    rows = []
    for name, mask in masks.items():
        (band,) = _bands(values, mask.astype(float), [1.0, 2.0]) or ({},)
        if not band:
            continue
        gap = _mean(values.kl[mask], values.document[mask])
        rest = float(values.kl[~mask].mean()) if (~mask).any() else 0.0
        rows.append(
            {key: value for key, value in band.items() if key not in {"low", "high", "share"}}
            | {
                "name": name,
                "title": {"numbers": "Numbers", "punctuation": "Punctuation", "tool_name": "Tool names"}[name],
                "definition": f"Tokens of the class {name}, as the synthetic reports have them.",
                "share": float(mask.mean()),
                "share_of_kl": float(values.kl[mask].sum() / values.kl.sum()) if values.kl.sum() else None,
                "share_of_kl_ci": _share_interval(values, mask),
                "nonfinite_positions": 0,
                "difference": {
                    "mean": gap["mean"] - rest,
                    "ci": None if gap["ci"] is None else [gap["ci"][0] - rest, gap["ci"][1] - rest],
                },
                "p_value": {"numbers": 0.4, "punctuation": 0.0002, "tool_name": 0.012}[name],
            }
        )
    return {
        "classes": rows,
        "absent": ["Code", "Other languages"],
        "none": None,
        "multiplicity": "3 classes were looked at, and they overlap.",
    }


def _share_interval(values: Tokens, mask: NDArray[np.bool_]) -> tuple[float, float] | None:
    """Of the share that a class has in the summed KL, by linearization over documents."""
    total = np.bincount(values.document, values.kl)
    if not total.any():
        return None
    share = float(values.kl[mask].sum() / total.sum())
    residual = np.bincount(values.document, values.kl * mask) - share * total
    half = 1.96 * math.sqrt(float((residual**2).sum()) * total.size / max(1, total.size - 1)) / float(total.sum())
    return (max(0.0, share - half), min(1.0, share + half))


def _histogram(kl: Floats) -> Json:
    edges = 10.0 ** np.arange(-10, 1.4001, 0.2)
    counts, _ = np.histogram(kl, edges)
    return {
        "edges": tuple(float(edge) for edge in edges),
        "counts": tuple(int(bin_count) for bin_count in counts),
        "below": int((kl < edges[0]).sum()),
        "above": int((kl >= edges[-1]).sum()),
    }
