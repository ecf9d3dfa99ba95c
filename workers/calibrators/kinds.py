"""All kinds of calibrators, by the name they are stored under."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch

from workers.calibrators.adapter import RepairAdapter
from workers.calibrators.base import Base
from workers.calibrators.chain import Chain
from workers.calibrators.confidence import ConfidenceTemperature
from workers.calibrators.identity import Identity
from workers.calibrators.lowrank import LowRank
from workers.calibrators.mixture import Mixture
from workers.calibrators.protocol import Parameter
from workers.calibrators.temperature import Temperature
from workers.calibrators.token_bias import TokenBias

KINDS: Final[Mapping[str, type[Base]]] = {
    made.KIND: made
    for made in (Identity, Temperature, ConfidenceTemperature, TokenBias, LowRank, Mixture, RepairAdapter, Chain)
}


def restore(kind: str, parameters: Mapping[str, Parameter], tensors: Mapping[str, torch.Tensor]) -> Base:
    """The calibrator that they describe. ValueError for an unknown kind; that or KeyError where they do not fit."""
    if kind not in KINDS:
        raise ValueError(f"unknown kind of calibrator {kind!r}")
    return KINDS[kind].restore(parameters, tensors)
