"""Norms scaled, shifted, given another epsilon, or without their learned weights.

A root-mean-square norm (Zhang and Sennrich 2019) is x / √(mean x² + ε) · g. What is changed is g, the *gain*, or ε.
Gemma stores g − 1: the steps speak of the gain for every architecture, so that dropping leaves g = 1 everywhere. The
division is code of every engine, which no configuration leaves out. The paper's family "normalization" names no
formulas; these are ours. Where a step before scaled channels, the gain is what the stored one means (`channels`).
"""

import torch

from app.models.steps.norm import EPSILON
from app.recipes.norm import NormDrop, NormEpsilon, NormScale
from workers.surgery.gains import offset_of
from workers.surgery.shop import StepRun

_DEFAULT = 1e-6  # of the configuration classes


class ScaleStep:
    """`norm.scale`: g becomes g · factor + shift."""

    version = 2

    def __init__(self, step: NormScale) -> None:
        self._step = step

    def run(self, shop: StepRun) -> None:
        """Raises CHECKPOINT_NOT_FINITE where the gain leaves the dtype's range."""
        offset = offset_of(shop.source)
        for norm in shop.weights:
            shop.check_cancelled()
            stored = shop.read(norm.name)
            meant = shop.channels.meaning(norm.name, stored).to(torch.float32)
            gain = (meant + offset) * self._step.factor + self._step.shift
            shop.put(norm.name, shop.channels.moved(norm.name, gain - offset).to(stored.dtype))
        shop.figures["norms"] = len(shop.weights)


class EpsilonStep:
    """`norm.epsilon`: the configuration's ε, which every norm of the engine reads."""

    version = 1

    def __init__(self, step: NormEpsilon) -> None:
        self._step = step

    def run(self, shop: StepRun) -> None:
        """Sets it; the gains stay."""
        shop.figures["epsilon_before"] = float(shop.config.get(EPSILON, _DEFAULT))
        shop.figures["epsilon"] = self._step.epsilon
        shop.config[EPSILON] = self._step.epsilon


class DropStep:
    """`norm.drop`: g becomes 1."""

    version = 2

    def __init__(self, step: NormDrop) -> None:
        self._step = step

    def run(self, shop: StepRun) -> None:
        """Writes the gains."""
        gain = 1.0 - offset_of(shop.source)
        for norm in shop.weights:
            shop.check_cancelled()
            dropped = torch.full_like(shop.read(norm.name), gain)
            shop.put(norm.name, shop.channels.moved(norm.name, dropped).to(dropped.dtype))
        shop.figures["norms"] = len(shop.weights)
