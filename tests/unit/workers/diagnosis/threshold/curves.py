"""The ten published curves, as curves.json beside this file holds them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers.diagnosis.threshold.bounds import Bounds
from workers.diagnosis.threshold.curve import Curve


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
    stored = json.loads((Path(__file__).parent / "curves.json").read_text(encoding="utf-8"))["curves"]
    return [
        Published(
            name,
            Curve.of(*zip(*entry["points"], strict=True)),
            Bounds(**{key: tuple(pair) for key, pair in entry["bounds"].items()}),
            entry["params"],
            entry["log_sse"],
            entry["optimum"],
            {"points": entry["points"], "bounds": entry["bounds"]},
        )
        for name, entry in stored.items()
    ]


CURVES = {curve.name: curve for curve in _load()}
