"""The interactions of a surface, domain by domain: what adds up in prose may compound in code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from app.contracts.surface_report import SurfaceDomain
from workers.diagnosis.surface.table import Table

TOO_FEW: Final = "too few documents"


def domains(table: Table, chosen: int, *, check_cancelled: Callable[[], None]) -> dict[str, SurfaceDomain]:
    """Each domain of the text, by name; `chosen` is the setting whose KL is told.

    A domain with fewer documents than intervals are clustered by has means only: windows of a few documents would pass
    for more than they are. One without a usable token stands in none of it.
    """
    found = {}
    names_W = np.array([table.domain_D[document] for document in table.document_W])
    for name in sorted(set(names_W.tolist())):
        check_cancelled()
        part = replace(table, within_W=names_W == name)
        tokens_W = part.window_tokens
        if not tokens_W.any():
            continue
        enough = part.clusters.by == "documents"
        kl, average = part.kl_mean(chosen), part.average_interaction()
        found[str(name)] = SurfaceDomain(
            tokens=int(tokens_W.sum()),
            documents=np.unique(table.document_W[tokens_W > 0]).size,
            kl=kl if enough else kl.model_copy(update={"ci": None, "clusters": None}),
            average=average if enough else average.model_copy(update={"ci": None, "clusters": None}),
            interactions=part.interactions() if enough else (),
            note="" if enough else TOO_FEW,
        )
    return found
