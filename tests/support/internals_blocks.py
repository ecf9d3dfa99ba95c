"""Blocks of what happens inside two models, made of synthetic values, for tests of what draws and checks reports."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from app.kinds.attribute.blocks import Internals

Json = dict[str, Any]
TEXT = {"windows": 12, "tokens": 768, "documents": 12}
LAYERS, HEADS, EXPERTS = 6, 4, 8
# The reference's layer 3 is gone; behind layer 4 stands a copy of it.
PAIRS = ((0, 0), (1, 1), (2, 2), (4, 3), (5, 5))


def mean(value: float, half: float | None = None) -> Json:
    half = abs(value) / 5 if half is None else half
    return {"mean": value, "ci": [value - half, value + half], "clusters": "documents"}


def alignment() -> Json:
    def gap(at: tuple[int, int], layer: Json, nats: float) -> Json:
        return {
            "at_reference": at[0],
            "at_candidate": at[1],
            "layers": [{"of": None, "distance": None, "added": 0.3} | layer],
            "nats": mean(nats),
            "share": nats / 1.1,
            "saved": mean(nats * 0.8),
            "similarity_before": 1.0,
            "similarity_after": 0.83,
            "stability": 0.995,
            "classes": [],
        }

    return {
        "measured": TEXT,
        "reference_layers": LAYERS,
        "candidate_layers": LAYERS,
        "resamplings": 200,
        "classes": [],
        "pairs": [{"reference": r, "candidate": c, "similarity": 0.97, "stability": 1.0} for r, c in PAIRS],
        "gaps": [
            gap((4, 3), {"kind": "dropped", "layer": 3}, 0.71),
            gap((5, 5), {"kind": "duplicate", "layer": 4, "of": 4, "distance": 0.0}, 0.22),
        ],
        "similarity": [[0.97 if (r, c) in PAIRS else 0.3 for c in range(LAYERS)] for r in range(LAYERS)],
        "gap_price": 0.1,
        "total": mean(1.1),
        "matched": mean(0.04),
        "control": 0.0,
        "additivity": 1.1 / 0.97,
    }


def attention() -> Json:
    def both(reference: float, candidate: float) -> Json:
        return {"reference": mean(reference), "candidate": mean(candidate)}

    def pair(reference: float, candidate: float) -> Json:
        return {
            "reference": reference,
            "reference_ci": mean(reference)["ci"],
            "candidate": candidate,
            "candidate_ci": mean(candidate)["ci"],
        }

    layers = []
    for number, (reference, candidate) in enumerate(PAIRS):
        heads = []
        for head in range(HEADS):
            js = 0.002 * (number + 1) * (head + 1) * (10 if (number, head) == (3, 2) else 1)
            heads.append(
                {
                    "head": head,
                    "partner": head,
                    "js": mean(js),
                    "kl": 4 * js,
                    "kl_ci": mean(4 * js)["ci"],
                    "tv": js**0.5 / 2,
                    "tv_ci": mean(js**0.5 / 2)["ci"],
                    "sink": pair(0.4, 0.43),
                    "entropy": pair(2.1, 2.0),
                    "range": pair(14.2, 12.9),
                }
            )
        layers.append(
            {
                "reference": reference,
                "candidate": candidate,
                "js": mean(0.01 * (number + 1)),
                "kl": mean(0.04 * (number + 1)),
                "tv": mean(0.05 * (number + 1)),
                "sink": both(0.4, 0.4 + 0.02 * number),
                "entropy": both(2.1, 2.0),
                "range": both(14.2, 12.9),
                "heads": heads,
            }
        )
    return {"measured": TEXT, "layers": layers, "js": mean(0.03), "sink": both(0.4, 0.44)}


def activations() -> Json:
    borders = [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (5, 5), (6, 6)]
    steps = []
    for (r0, c0), (r1, c1) in pairwise(borders):
        gap = (r1 - r0, c1 - c0) != (1, 1)
        steps.append(
            {
                "reference": [r0, r1],
                "candidate": [c0, c1],
                "gap": gap,
                "fresh": mean(0.4 if gap else 0.03),
                "amplification": mean(1.2) if c0 else {"mean": None, "ci": None, "clusters": None},
                "growth": mean(1.25) if c0 else {"mean": None, "ci": None, "clusters": None},
                "direct": mean(0.3 if gap else 0.02),
                "final": mean(0.2 if gap else 0.03),
                "repaired": mean(0.33 if gap else -0.5, 0.1),
            }
        )
    return {
        "measured": TEXT,
        "borders": [
            {
                "reference": r,
                "candidate": c,
                "relative": mean(0.09 * index),
                "sqnr": mean(20.0 - 2 * index, 1.0) if index else None,
                "cosine": mean(1 - 0.02 * index, 0.005),
                "outlier_channels": 2,
                "outlier_share": 0.21 if index else None,
                "outlier_share_ci": None,
                "outliers": [{"channel": 5, "ratio": 31.0, "error_share": 0.2}],
            }
            for index, (r, c) in enumerate(borders)
        ],
        "steps": steps,
        "cascade": mean(1.8, 0.3),
        "repair_measured": {"windows": 4, "tokens": 256, "documents": 4},
    }


def routing() -> Json:
    load = [1 / EXPERTS] * EXPERTS
    moved = [load[0] + 0.04, load[1] - 0.04, *load[2:]]
    return {
        "measured": TEXT,
        "experts": EXPERTS,
        "chosen": [2, 2],
        "changed": mean(0.12),
        "layers": [
            {
                "layer": layer,
                "changed": mean(0.05 + 0.03 * layer),
                "any_changed": mean(0.1 + 0.05 * layer),
                "own": mean(0.02),
                "divergence": mean(0.01 * (layer + 1)),
                "load_shift": mean(0.04),
                "margin_changed": mean(0.1),
                "margin_same": mean(0.5),
                "load_reference": load,
                "load_candidate": moved,
                "load_reference_ci": [mean(one)["ci"] for one in load],
                "load_candidate_ci": [mean(one)["ci"] for one in moved],
            }
            for layer in range(4)
        ],
    }


def dense(**changes: Json | None) -> Internals:
    """Of two dense models."""
    found = {"alignment": alignment(), "attention": attention(), "activations": activations()}
    return Internals.model_validate(found | changes)


def mixture() -> Internals:
    """Of two mixtures of experts."""
    return Internals.model_validate({"routing": routing(), "not_measured": ["layers are <not> run one at a time"]})
