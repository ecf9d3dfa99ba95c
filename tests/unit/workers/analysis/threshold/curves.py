"""The ten published curves, as curves.json beside this file holds them: by name, in the form in which published curves
are collected and `hemostat threshold` takes them, with every digit.

Data points and coefficients as drawn in figures 2, 3 and B1 of 'Phase transitions in large language model compression'
(npj Artificial Intelligence 2026, 2:21; github.com/whucs21Mzy/Model-Phase-Transitions), LLaMA-2-7B, WikiText-2
perplexity against the share removed. Bounds are those that the coefficients show; `star` is the published knee.
`published_log_sse` is that of the published coefficients, and a flag tells whether they are the optimum under these
bounds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.analysis.threshold.bounds import Bounds
from workers.analysis.threshold.curve import Curve

FILE = Path(__file__).parent / "curves.json"


@dataclass(frozen=True)
class Published:
    """One curve: its points, the bounds that show, the published coefficients, whether they are the optimum."""

    name: str
    curve: Curve
    bounds: Bounds
    params: dict[str, float]
    log_sse: float
    optimum: bool
    request: dict[str, Any]


def _load() -> list[Published]:
    stored = json.loads(FILE.read_text(encoding="utf-8"))
    return [
        Published(
            name,
            Curve.of(*zip(*entry["data"], strict=True)),
            Bounds(**{key: tuple(pair) for key, pair in entry["bounds"].items()}),
            entry["params"],
            entry["published_log_sse"],
            entry["published_point_is_the_optimum_under_these_bounds"],
            {"points": entry["data"], "bounds": entry["bounds"]},
        )
        for name, entry in stored.items()
    ]


CURVES = {curve.name: curve for curve in _load()}
