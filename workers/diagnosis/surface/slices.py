"""What a part of the text's positions says of two knobs: a domain, a class of tokens."""

from __future__ import annotations

from typing import Final

import numpy as np

from app.contracts.report import Mean
from app.kinds.surface.report import SurfaceSlice
from workers.diagnosis.surface.table import Table

TOO_FEW: Final = "too few documents"


def sliced(part: Table, chosen: int) -> SurfaceSlice:
    """Of a table whose points have the sums of the part alone, which some usable token is in; `chosen` is the setting
    whose KL is reported.

    A part in fewer documents than intervals are clustered by has means only: windows of a few documents would pass for
    more than they are.
    """
    tokens_W = part.window_tokens
    enough = judged(part)

    def as_known(mean: Mean) -> Mean:
        return mean if enough else mean.model_copy(update={"ci": None, "clusters": None})

    kls = tuple(as_known(mean) for mean in part.kl_means())
    return SurfaceSlice(
        tokens=int(tokens_W.sum()),
        documents=np.unique(part.document_W[tokens_W > 0]).size,
        kl=kls[chosen],
        average=as_known(part.average_interaction()),
        interactions=part.interactions() if enough else (),
        kl_by_setting=kls,
        note="" if enough else TOO_FEW,
    )


def judged(part: Table) -> bool:
    """Whether a part is in documents enough for intervals and interactions of its own."""
    return part.clusters.by == "documents"
