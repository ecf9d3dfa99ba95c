"""What every point is measured against: the text, the reference's hidden states over it, and the noise floor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from workers.measuring.attempt import Scored
from workers.measuring.calibration_text import CalibrationLoader
from workers.measuring.floor import Floor
from workers.measuring.long_context import Cut
from workers.measuring.recipes import ReferenceStates
from workers.measuring.sets import Part
from workers.measuring.sides import Side, Sides


@dataclass(frozen=True)
class _ReadOn:
    """Hidden states of windows that the reference read in parts."""

    of_window: Callable[[int], torch.Tensor]

    def window(self, index: int) -> torch.Tensor:
        """hidden_TD of one window."""
        return self.of_window(index)


@dataclass(frozen=True)
class Ground:
    """The reference over the text. `sides` holds it twice: its candidate is the model before any recipe.

    `shorter`, with windows longer than the reference's context, is what it reads of them, and `scored` is over that.
    `allowed` warns of what the request allows that flatters the recipes. `classes` are masks over the positions of
    `part` by the name of the token class; None where nobody asked for them.
    """

    sides: Sides
    part: Part
    scored: Scored
    floor: Floor
    texts: CalibrationLoader
    shorter: Cut | None = None
    allowed: tuple[str, ...] = ()
    classes: Mapping[str, NDArray[np.bool_]] | None = None

    @property
    def states(self) -> ReferenceStates:
        """The reference's hidden states of each window of the text."""
        return self.scored.stored if self.shorter is None else _ReadOn(self.shorter.states(self.scored.stored.window))

    @property
    def reference_context(self) -> int | None:
        """The reference's context where it is shorter than the windows."""
        return None if self.shorter is None else self.shorter.corpus.window

    @property
    def reference(self) -> Side:
        """The unmodified model."""
        return self.sides.reference

    @property
    def shared(self) -> bool:
        """Whether another worker scored the reference as this one would. One with another engine or device names its
        points otherwise: neither could use what the other measures."""
        return self.scored.from_store

    @property
    def origin_weights(self) -> str:
        """Fingerprint of the weights that recipes start from."""
        return self.sides.candidate.weights

    @property
    def window_documents(self) -> NDArray[np.int64]:
        """The document of each window."""
        return np.array([window.document for window in self.part.corpus.windows], dtype=np.int64)
