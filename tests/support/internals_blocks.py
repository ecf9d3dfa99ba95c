"""Blocks of what happens inside two models, made of synthetic values, for tests of what draws and checks reports."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from app.kinds.attribute.blocks import Internals

Json = dict[str, Any]
TEXT = {"windows": 12, "tokens": 768, "documents": 12}
LAYERS = 6
# The reference's layer 3 is gone; behind layer 4 stands a copy of it.
PAIRS = ((0, 0), (1, 1), (2, 2), (4, 3), (5, 5))


def mean(value: float, half: float | None = None) -> Json:
    half = abs(value) / 5 if half is None else half
    return {"mean": value, "ci": [value - half, value + half], "clusters": "documents"}


def alignment() -> Json:
    def gap(at: tuple[int, int], layers: Json, nats: float) -> Json:
        return {
            "at_reference": at[0],
            "at_candidate": at[1],
            "dropped": [],
            "inserted": [],
            "nats": mean(nats),
            "share": nats / 1.1,
            "saved": mean(nats * 0.8),
            "stability": 0.995,
        } | layers

    return {
        "measured": TEXT,
        "reference_layers": LAYERS,
        "candidate_layers": LAYERS,
        "pairs": [{"reference": r, "candidate": c, "similarity": 0.97, "stability": 1.0} for r, c in PAIRS],
        "gaps": [gap((4, 3), {"dropped": [3]}, 0.71), gap((5, 5), {"inserted": [4]}, 0.22)],
        "total": mean(1.1),
        "matched": mean(0.04),
        "control": 0.0,
    }


def attention() -> Json:
    layers = [
        {"reference": reference, "candidate": candidate, "js": mean(0.01 * (number + 1))}
        for number, (reference, candidate) in enumerate(PAIRS)
    ]
    return {"measured": TEXT, "layers": layers, "js": mean(0.03)}


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
            }
        )
    return {
        "measured": TEXT,
        "borders": [
            {"reference": r, "candidate": c, "relative": mean(0.09 * index)} for index, (r, c) in enumerate(borders)
        ],
        "steps": steps,
        "cascade": mean(1.8, 0.3),
    }


def dense(**changes: Json | None) -> Internals:
    """Of two dense models."""
    found = {"alignment": alignment(), "attention": attention(), "activations": activations()}
    return Internals.model_validate(found | changes)
