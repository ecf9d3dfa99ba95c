"""The interactions of a surface, domain by domain: what adds up in prose may compound in code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from app.kinds.surface.report import SurfaceSlice
from workers.diagnosis.surface.slices import sliced
from workers.diagnosis.surface.table import Table


def domains(table: Table, chosen: int, *, check_cancelled: Callable[[], None]) -> dict[str, SurfaceSlice]:
    """Each domain of the text, by name; `chosen` is the setting whose KL is told.

    A domain with fewer documents than intervals are clustered by has means only. One without a usable token stands in
    none of it.
    """
    found = {}
    names_W = np.array([table.domain_D[document] for document in table.document_W])
    for name in sorted(set(names_W.tolist())):
        check_cancelled()
        part = replace(table, within_W=names_W == name)
        if part.window_tokens.any():
            found[str(name)] = sliced(part, chosen)
    return found
