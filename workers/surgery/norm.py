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
from workers.surgery.step_run import StepRun

_DEFAULT = 1e-6  # of the configuration classes


class ScaleStep:
    """`norm.scale`: g becomes g · factor + shift."""

    version = 2

    def __init__(self, step: NormScale) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Raises CHECKPOINT_NOT_FINITE if the gain leaves the dtype's range."""
        offset = offset_of(context.source)
        for norm in context.weights:
            context.check_cancelled()
            stored = context.read(norm.name)
            meant = context.channels.meaning(norm.name, stored).to(torch.float32)
            gain = (meant + offset) * self._step.factor + self._step.shift
            context.put(norm.name, context.channels.moved(norm.name, gain - offset).to(stored.dtype))
        context.figures["norms"] = len(context.weights)


class EpsilonStep:
    """`norm.epsilon`: the configuration's ε, which every norm of the engine reads."""

    version = 1

    def __init__(self, step: NormEpsilon) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Sets it; the gains stay."""
        context.figures["epsilon_before"] = float(context.config.get(EPSILON, _DEFAULT))
        context.figures["epsilon"] = self._step.epsilon
        context.config[EPSILON] = self._step.epsilon


class DropStep:
    """`norm.drop`: g becomes 1."""

    version = 2

    def __init__(self, step: NormDrop) -> None:
        self._step = step

    def run(self, context: StepRun) -> None:
        """Writes the gains."""
        gain = 1.0 - offset_of(context.source)
        for norm in context.weights:
            context.check_cancelled()
            dropped = torch.full_like(context.read(norm.name), gain)
            context.put(norm.name, context.channels.moved(norm.name, dropped).to(dropped.dtype))
        context.figures["norms"] = len(context.weights)
