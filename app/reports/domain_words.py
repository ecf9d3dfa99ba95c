"""What is reported of the parts of a text, its domains or kinds of token, where none of them can be judged alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from app.kinds.surface.report import SurfaceSlice
from app.kinds.sweep.report import SweepSlice
from app.reports import format as fmt
from app.reports.untrusted import visible

KIND: Final = "kind of token"
OVERLAP: Final = "A token may be of several kinds."


def unjudged(parts: Mapping[str, SweepSlice] | Mapping[str, SurfaceSlice], what: str = "domain") -> str:
    """One line in place of a table whose every row says that documents are too few; empty where a part can be judged,
    and where there is none. `what` people call a part."""
    if not parts or not all(one.note for one in parts.values()):
        return ""
    told = ", ".join(f"{visible(name)} {fmt.count(one.documents)}" for name, one in parts.items())
    if len(parts) == 1:
        return f"The one {what} cannot be judged alone: it has too few documents ({told})."
    return f"No {what} can be judged alone: each has too few documents ({told})."
