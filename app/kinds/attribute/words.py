"""Which part is to blame, and what its cause is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from app.contracts.report import Mean
from app.kinds.attribute.blocks import Measured
from app.kinds.attribute.report import AttributeReport, Cause, Site, Unclear
from app.reports import format as fmt
from app.reports.blocks import Cell

MOST_NAMED: Final = 12
NO_INTERVAL: Final = "no interval"
CAUSES: Final[dict[Cause | Unclear, str]] = {
    "no_damage_shown": "no damage shown",
    "not_looked_into": "not looked into",
    "negligible": "negligible",
    "removed": "removed",
    "inserted": "inserted",
    "norm": "norm",
    "router": "router",
    "outlier_channels": "outlier channels",
    "aligned": "aligned error",
    "low_rank": "low-rank error",
    "size": "mere size",
    "sheltered": "sheltered",
    "unclear": "unclear",
}


def heading(report: AttributeReport) -> str:
    """The worst part, or that there is none, or none that is shown to be, or none that was tried."""
    if report.nowhere_finite:
        return f"Worst: {report.nowhere_finite[0].name}"
    search = report.search
    if search is not None and not search.measured and (search.considered or search.others):
        return "No part was tried" if search.considered else "Nothing that was asked for differs"
    if report.not_swapped:
        return _of_unswapped(report)
    if blamed := blamed_sites(report):
        return f"Worst: {blamed[0].name}"
    return "No part is shown to do damage" if any(map(_is_unsure, first_sites(report))) else "No part to blame"


def _of_unswapped(report: AttributeReport) -> str:
    """The worst gap, or what both models have if that costs more."""
    kept = _kept(report)
    if not report.sites and not kept:
        return "No part was swapped"
    if kept > max((gap.nats for gap in report.sites), default=0.0):
        return "Worst: what both models have"
    if blamed := blamed_sites(report):
        return f"Worst gap: {blamed[0].name}"
    return "No gap is shown to do damage" if any(map(_is_unsure, report.sites)) else "No gap to blame"


def _kept(report: AttributeReport) -> float:
    """Nats that the matched layers, embedding and head of models of different depth cost; 0 if that is not sure."""
    alignment = None if report.internals is None else report.internals.alignment
    if alignment is None or (alignment.matched.ci is not None and alignment.matched.ci[0] <= 0):
        return 0.0
    return alignment.matched.mean or 0.0


def first_sites(report: AttributeReport) -> list[Site]:
    """The parts that were looked into, in their order."""
    by_name = {site.name: site for site in report.sites}
    names = () if report.explained is None else report.explained.sites
    return [by_name[name] for name in names if name in by_name]


def leading_sites(report: AttributeReport) -> list[Site]:
    """The parts that were looked into; if no part was swapped, all gaps."""
    return first_sites(report) or (list(report.sites) if report.not_swapped else [])


def blamed_sites(report: AttributeReport) -> list[Site]:
    """The leading parts that cost something for sure."""
    return [site for site in leading_sites(report) if site.cause != "negligible" and not _is_unsure(site)]


def _is_unsure(site: Site) -> bool:
    """Whether damage is neither shown nor excluded."""
    return site.shown is False and site.cause != "negligible"


def cause_of(site: Site) -> Cause | Unclear:
    """The cause of a part, or why there is none. An unclear cause has a treatment, as mere size has."""
    if _is_unsure(site):
        return "no_damage_shown"
    if site.unclear == "not_looked_into" or (site.cause == "unclear" and site.control is None):
        return "not_looked_into"
    return site.cause


def cause_text(site: Site) -> str:
    """The same in few words."""
    return CAUSES[cause_of(site)]


def mean_text(mean: Mean | None, *, percent: bool = False) -> fmt.Estimate:
    """A mean with its interval; a dash if there is none."""
    return fmt.Estimate(fmt.NONE, None) if mean is None else fmt.estimate(mean.mean, mean.ci, percent=percent)


def mean_cell(mean: Mean | None, *, strong: bool = False, percent: bool = False) -> Cell:
    """A mean above its interval."""
    text = mean_text(mean, percent=percent)
    return Cell(text.value, text.interval or ("" if text.value == fmt.NONE else NO_INTERVAL), strong=strong)


def named(names: Sequence[str], most: int = 4) -> str:
    """The first few by name, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def on(measured: Measured) -> str:
    """The text that something was measured on."""
    return f"on {fmt.counted(measured.tokens, 'token')} of {fmt.counted(measured.documents, 'document')}"


def with_intervals(has_some: bool) -> str:
    """The end of a chart's caption."""
    return f"{'with' if has_some else 'without'} 95 % intervals"
