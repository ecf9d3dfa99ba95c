"""All that an attribute job found out."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from app.kinds.attribute.blocks import Internals
from app.kinds.attribute.report import Whole
from app.kinds.attribute.request import AttributeRequest
from app.models.checkpoint import CheckpointInfo
from workers.diagnosis.attribute.examination import Examination
from workers.diagnosis.attribute.numbering import made_of
from workers.diagnosis.attribute.search import Search
from workers.diagnosis.attribute.sites import Scope
from workers.diagnosis.attribute.subset import Subset
from workers.diagnosis.attribute.treatment import Untreated
from workers.measuring.pair import Measured


@dataclass(kw_only=True)
class Found(Measured):
    """All that an attribute job found out beside the whole; most of it only if parts could be swapped."""

    request: AttributeRequest
    origin: CheckpointInfo
    not_swapped: str = ""
    whole: Whole | None = None
    subset: Subset | None = None
    search: Search | None = None
    examination: Examination | None = None
    internals: Internals | None = None
    full: NDArray[np.float32] | None = None
    scope: Scope = field(default_factory=Scope)
    search_seconds: float = 0.0

    def patient(self) -> Untreated:
        """Whom a treatment is for."""
        made = self.sides.candidate.info.tensors, self.sides.modified.manifest.origins
        recipe, reference = self.request.candidate.recipe, self.sides.reference.info
        return Untreated(self.origin, recipe, reference, made_of(self.origin, *made))
