"""What an attribute job found: the worst parts with intervals, their causes and treatments, and whether they add up."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from app.kinds.attribute.report import AttributeReport, Site
from app.reports.blocks import Figure, Table
from app.web import format as fmt
from app.web.charts_bars import Bar, columns_chart, ranked_bars
from app.web.sections.attribute_classes import PartClasses, part_classes
from app.web.sections.attribute_tables import pairs_table, search_table, sites_table, treatments_table, whole_table
from app.web.sections.attribute_words import (
    MEANING,
    SHOWN,
    additivity_note,
    blamed_sites,
    cause_text,
    first_sites,
    heading,
    mean_text,
    nowhere_finite_note,
    recipe_text,
    search_note,
    share_text,
    sites_note,
    unswapped,
    whole_note,
    why_text,
)
from app.web.untrusted import visible

_FIRST_ROWS = 20


@dataclass(frozen=True)
class Attribution:
    """Texts, charts and tables of the page."""

    heading: str
    sentence: str
    not_swapped: str
    nowhere_finite: str
    figures: tuple[Figure, ...]
    chart: Markup | None
    layers: Markup | None
    chart_intervals: bool
    layers_intervals: bool
    sites: Table
    more: Table
    meaning: str
    sites_note: str
    classes: PartClasses | None
    recipe: str
    treatments: Table
    treatment_note: str
    pairs: Table
    additivity: str
    whole: Table
    whole_note: str
    search: Table
    search_note: str


def attribution(report: AttributeReport) -> Attribution:
    """The view of a report."""
    return Attribution(
        heading=heading(report),
        sentence=visible(report.verdict),
        not_swapped=visible(report.not_swapped),
        nowhere_finite=visible(nowhere_finite_note(report)),
        figures=_figures(report),
        chart=_chart(report),
        layers=_layers(report),
        chart_intervals=any(site.ci is not None for site in report.sites[:SHOWN]),
        layers_intervals=any(site.ci is not None for site in report.sites if site.kind == "layer"),
        sites=sites_table(report, 0, _FIRST_ROWS),
        more=sites_table(report, _FIRST_ROWS, len(report.sites)),
        meaning=MEANING,
        sites_note=sites_note(report),
        classes=part_classes(report),
        recipe=recipe_text(report.treatment),
        treatments=treatments_table(report),
        treatment_note="" if report.treatment is None else visible(report.treatment.why),
        pairs=pairs_table(report),
        additivity=additivity_note(report),
        whole=whole_table(report),
        whole_note=whole_note(report),
        search=search_table(report),
        search_note=search_note(report),
    )


def _figures(report: AttributeReport) -> tuple[Figure, ...]:
    first, explained = first_sites(report) or unswapped(report), report.explained
    if not first:
        return ()
    blamed = blamed_sites(report)
    worst = blamed[0] if blamed else first[0]
    nats, share = fmt.estimate(worst.nats, worst.ci), share_text(worst)
    alone = (
        Figure(
            _label(worst, blamed=bool(blamed), numbered=not report.nowhere_finite),
            nats.value,
            "nats a token",
            nats.interval or "no interval",
            worst.name,
        ),
        Figure(
            "Its share",
            share.value,
            f"% of the whole damage{_on_part(worst, report)}",
            share.interval or "no interval",
            ": ".join(filter(None, (cause_text(worst), why_text(worst)))),
        ),
    )
    if explained is None:
        gained = mean_text(worst.restored)
        return (
            *alone,
            Figure("Regained", gained.value, "nats a token without it", gained.interval or "no interval", worst.name),
        )
    together, gained = mean_text(explained.share, percent=True), mean_text(explained.restored_share, percent=True)
    ratio = fmt.estimate(worst.isotropic_ratio, worst.isotropic_ci)
    parts = f"the first {len(explained.sites)} parts" if len(explained.sites) > 1 else worst.name
    return (
        *alone,
        Figure("Explained", together.value, "% of it, swapped together", together.interval or "no interval", parts),
        Figure("Regained", gained.value, "% of it, restored together", gained.interval or "no interval", parts)
        if explained.restored_share is not None
        else Figure(
            "Against noise", ratio.value, "× noise of the same norm", ratio.interval or "no interval", worst.name
        ),
    )


def _on_part(worst: Site, report: AttributeReport) -> str:
    """The text that a part was measured on, where that is not all that parts were swapped on."""
    if report.subset is None or worst.tokens >= report.subset.positions:
        return ""
    return f" on the first {fmt.count(worst.tokens)} of {fmt.counted(report.subset.positions, 'token')}"


def _label(worst: Site, *, blamed: bool, numbered: bool) -> str:
    """What the first figure is of; where some parts have no number (not `numbered`), of the others."""
    if worst.kind == "gap":
        return "Worst gap alone" if blamed else "Most of any gap"
    if not numbered:
        return "Worst of the others" if blamed else "Most of the others"
    return "Worst part alone" if blamed else "Most of any part"


def _chart(report: AttributeReport) -> Markup | None:
    bars = []
    for site in report.sites[:SHOWN]:
        nats, share = fmt.estimate(site.nats, site.ci), share_text(site)
        bars.append(Bar(site.name, f"{nats.value} · {share.value} %", site.nats, site.ci))
    return (
        ranked_bars(bars, title="The worst parts, alone", unit="nats a token; share of the whole damage")
        if bars
        else None
    )


def _layers(report: AttributeReport) -> Markup | None:
    layers = sorted((site for site in report.sites if site.kind == "layer"), key=lambda site: site.layer or 0)
    if len(layers) < 2:
        return None
    bars = [
        Bar(str(site.layer), f"{fmt.estimate(site.nats, site.ci)} nats a token", site.nats, site.ci) for site in layers
    ]
    return columns_chart(bars, title="Each layer alone", unit="nats a token", along="layer")
