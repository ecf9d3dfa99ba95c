"""What every point is measured against: the text, the reference's hidden states over it, and the noise floor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.contracts.notice import Notice
from workers.measuring.attempt import ReferenceRun
from workers.measuring.calibration_text import CalibrationLoader
from workers.measuring.sets import Part
from workers.measuring.sides import Side, Sides


@dataclass(frozen=True)
class Ground:
    """The reference over the text. `sides` holds it twice: its candidate is the model before any recipe.

    `allowed` warns of what the request allows that flatters the recipes.
    """

    sides: Sides
    part: Part
    run: ReferenceRun
    texts: CalibrationLoader
    allowed: tuple[Notice, ...] = ()

    @property
    def reference(self) -> Side:
        """The unmodified model."""
        return self.sides.reference

    @property
    def shared(self) -> bool:
        """Whether another worker scored the reference as this one would. One with another engine or device names its
        points otherwise: neither could use what the other measures."""
        return self.run.scored.from_store

    @property
    def origin_weights(self) -> str:
        """Fingerprint of the weights that recipes start from."""
        return self.sides.candidate.weights

    @property
    def window_documents(self) -> NDArray[np.int64]:
        """The document of each window."""
        return np.array([window.document for window in self.part.corpus.windows], dtype=np.int64)
