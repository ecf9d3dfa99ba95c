"""Simulated losses of documents at the settings of a curve whose truth is known."""

from __future__ import annotations

from typing import Literal

import numpy as np

from tests.support.knees import Array, Scenario
from workers.analysis.threshold.curve import Curve
from workers.analysis.threshold.documents import DocumentLosses

# How the errors of one document at different settings hang together: each for itself; all in proportion to the damage;
# each setting's upon that of the one before.
Errors = Literal["independent", "proportional", "accumulating"]


def simulated(scenario: Scenario, documents: int, rng: np.random.Generator, *, noise: float = 1.5) -> DocumentLosses:
    """Documents of unequal length that differ in level and, lognormally, in how much they suffer; tokens add noise.

    The mean over all such documents is the scenario's curve.
    """
    tokens_D = rng.integers(50, 400, documents)
    level_D, suffering_D = rng.normal(0, 0.5, documents), rng.lognormal(-0.125, 0.5, documents)
    damage_P = scenario.truth - scenario.truth[0]
    loss_PD = scenario.truth[0] + level_D + damage_P[:, None] * suffering_D
    loss_PD += noise * (1 + 2 * damage_P[:, None]) * rng.standard_normal(loss_PD.shape) / np.sqrt(tokens_D)
    return DocumentLosses.of(loss_PD * tokens_D, tokens_D)


def around(truth_P: Array, errors: Errors, documents: int, rng: np.random.Generator) -> DocumentLosses:
    """Documents whose mean is the curve, with errors that hang together as said; 0.05 nats a token and setting."""
    tokens_D, level_D = rng.integers(50, 400, documents), rng.normal(0, 0.5, documents)
    error_PD = 0.05 * rng.standard_normal((len(truth_P), documents))
    if errors == "accumulating":
        error_PD = np.cumsum(error_PD, axis=0)
    if errors == "proportional":
        error_PD += (truth_P - truth_P[0])[:, None] * (rng.lognormal(-0.125, 0.5, documents) - 1)
    return DocumentLosses.of((truth_P[:, None] + level_D + error_PD) * tokens_D, tokens_D)


def curve_of(s_P: Array, losses: DocumentLosses) -> Curve:
    """The curve that the documents give together."""
    return Curve.of(s_P, np.exp(losses.logs()))
