"""All kinds of calibrators, by the name they are stored under."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch

from workers.calibration.calibrators.adapter import RepairAdapter
from workers.calibration.calibrators.base import Base
from workers.calibration.calibrators.chain import Chain
from workers.calibration.calibrators.confidence import ConfidenceTemperature
from workers.calibration.calibrators.identity import Identity
from workers.calibration.calibrators.lowrank import LowRank
from workers.calibration.calibrators.mixture import Mixture
from workers.calibration.calibrators.protocol import Parameter
from workers.calibration.calibrators.temperature import Temperature
from workers.calibration.calibrators.token_bias import TokenBias

KINDS: Final[Mapping[str, type[Base]]] = {
    made.KIND: made
    for made in (Identity, Temperature, ConfidenceTemperature, TokenBias, LowRank, Mixture, RepairAdapter, Chain)
}


def restore(kind: str, parameters: Mapping[str, Parameter], tensors: Mapping[str, torch.Tensor]) -> Base:
    """The calibrator that they describe. ValueError for an unknown kind; that or KeyError where they do not fit."""
    if kind not in KINDS:
        raise ValueError(f"unknown kind of calibrator {kind!r}")
    return KINDS[kind].restore(parameters, tensors)
