"""What is said of the domains of a text where none of them can be judged alone."""

from __future__ import annotations

from collections.abc import Mapping

from app.contracts.surface_report import SurfaceDomain
from app.contracts.sweep_report import SweepDomain
from app.web import format as fmt
from app.web.untrusted import visible


def unjudged(domains: Mapping[str, SweepDomain] | Mapping[str, SurfaceDomain]) -> str:
    """One line in place of a table whose every row says that documents are too few; empty where a domain can be judged,
    and where there is none."""
    if not domains or not all(one.note for one in domains.values()):
        return ""
    told = ", ".join(f"{visible(name)} {fmt.count(one.documents)}" for name, one in domains.items())
    if len(domains) == 1:
        return f"The one domain cannot be judged alone: it has too few documents ({told})."
    return f"No domain can be judged alone: each has too few documents ({told})."
