"""Deployments and scored requests as tests need them."""

from typing import Any

import torch

from app.contracts.deployment import Deployment, DeploymentState
from app.contracts.request import CandidateModel, ReferenceModel
from workers.calibration.online.rescore import Scored
from workers.calibration.online.scoring import Rows
from workers.calibration.online.window import ScoredRequest
from workers.calibrators.protocol import RowContext

ONE, TWO = "cal-" + "1" * 16, "cal-" + "2" * 16
NOW = 1_000_000.0


def deployment(**fields: Any) -> Deployment:
    told: dict[str, Any] = {
        "id": "dep_1",
        "name": "demo",
        "model": CandidateModel(model="m-w4"),
        "reference": ReferenceModel(model="m"),
        "calibration": "auto",
        "shadow_rate": 1.0,
        "shadow_tokens_per_second": 100.0,
        "drift_threshold": 0.1,
        "alpha": 0.01,
        "replicas": 1,
        "max_model_len": None,
        "state": DeploymentState.READY,
        "created_at": 0.0,
        "updated_at": 0.0,
    }
    return Deployment.model_validate(told | fields)


def rows(count: int, width: int = 8, seed: int = 0) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    states = [torch.randn(count, width, generator=generator) for _ in range(2)]
    index = torch.arange(count)
    return Rows(states[0], states[1], index, RowContext(index + 1, index))


def scored(
    served: float,
    *,
    raw: float | None = None,
    version: str = "identity",
    tokens: int = 10,
    at: float = NOW,
    previous: float | None = None,
    trial: float | None = None,
    trial_version: str | None = None,
) -> Scored:
    raw = served if raw is None else raw
    finite = served != float("inf")
    request = ScoredRequest(
        at=at,
        version=version,
        tokens=tokens,
        raw=raw * tokens,
        calibrated=served * tokens if finite else 0.0,
        top1_raw=5,
        top1_calibrated=6,
    )
    return Scored(
        id="r",
        at=at,
        version=version,
        tokens=tokens,
        raw=raw,
        served=served,
        previous=previous,
        trial=trial,
        trial_version=trial_version,
        request=request if finite else None,
        rows=rows(tokens),
        kl={},
    )
