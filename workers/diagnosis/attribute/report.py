"""The report of an attribute job, from everything that was measured."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.kinds.attribute.answer import sentence
from app.kinds.attribute.report import (
    AttributeReport,
    Cause,
    NowhereFinite,
    Site,
    Treatment,
    Unclear,
)
from app.kinds.attribute.report import Search as SearchBlock
from app.kinds.attribute.report import Subset as SubsetBlock
from workers.diagnosis.attribute.cause import Found as CauseFound
from workers.diagnosis.attribute.cause import cause_of, shown
from workers.diagnosis.attribute.examination import BATCHES as CONTROL_BATCHES
from workers.diagnosis.attribute.examination import batches_of
from workers.diagnosis.attribute.found import Found
from workers.diagnosis.attribute.gaps import gap_sites
from workers.diagnosis.attribute.search import Measured
from workers.diagnosis.attribute.sites import Site as Part
from workers.diagnosis.attribute.subset import Subset
from workers.diagnosis.attribute.treatment import treat
from workers.diagnosis.attribute.warnings import warnings_of
from workers.measuring.gauges import export_metrics, send
from workers.measuring.means import POSITIVE, mean_of, ratio
from workers.process.handler import JobContext

SITES_FILE, RECIPE_FILE = "sites.json", "recipe.json"


def build_report(found: Found, context: JobContext) -> AttributeReport:
    """Statistics of the candidate as a whole, and the ranked list of its parts."""
    sites = ranked_sites(found, context)
    examination = found.examination
    by_name = {site.name: site for site in sites}
    together = (
        None if examination is None else treatment(found, [(part, by_name[part.name]) for part in examination.first])
    )
    report = found.reported(
        AttributeReport,
        verdict="",
        sites=sites,
        nowhere_finite=nowhere_finite_parts(found),
        whole=found.whole,
        explained=None if examination is None else examination.explained,
        additivity=None if examination is None else examination.additivity,
        treatment=together or _of_the_first(sites),
        search=_search(found),
        subset=_subset(found),
        not_swapped=found.not_swapped,
        internals=found.internals,
        warnings=tuple(warnings_of(found, sites, found.summary.nonfinite_positions)),
    )
    return report.model_copy(update={"verdict": sentence(report)})


def _of_the_first(sites: tuple[Site, ...]) -> Treatment | None:
    """Where no part was swapped: the treatment of the first that costs something for sure, or of the first."""
    blamed = (site for site in sites if site.cause != "negligible" and site.shown is not False)
    first = next(blamed, sites[0] if sites else None)
    return None if first is None else first.treatment


def _search(found: Found) -> SearchBlock | None:
    search, examination = found.search, found.examination
    if search is None or examination is None:
        return None
    return SearchBlock(
        budget=search.budget,
        spent=round(search.spent, 3),
        looked_into=round(examination.cost, 3),
        considered=len(found.scope.chosen),
        unchanged=found.scope.unchanged,
        untried=len(search.untried),
        others=found.scope.others,
        measured=len(search.found),
        seconds=round(found.search_seconds, 3),
    )


def _subset(found: Found) -> SubsetBlock | None:
    subset, examination = found.subset, found.examination
    if subset is None or examination is None:
        return None
    swapper = examination.swapper
    return SubsetBlock(
        windows=len(subset.windows),
        length=subset.length,
        documents=int(np.unique(subset.where.document).size),
        positions=len(subset.where),
        control_positions=swapper.positions(min(CONTROL_BATCHES, len(swapper.batches))),
        twin_positions=swapper.positions(batches_of(swapper)),
    )


def export(report: AttributeReport, found: Found, context: JobContext) -> None:
    """Artifacts and metrics."""
    folder = context.output
    sites = [site.model_dump(mode="json") for site in report.sites]
    (folder / SITES_FILE).write_text(json.dumps(sites, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if report.treatment is not None and report.treatment.recipe is not None:
        recipe = json.dumps(list(report.treatment.recipe), indent=2, ensure_ascii=False)
        (folder / RECIPE_FILE).write_text(recipe + "\n", encoding="utf-8")
    found.write()
    export_metrics(report, found.values, context)
    # what is finite nowhere is worse than the first that has a number, and has none
    worst = report.sites[0] if report.sites and not report.nowhere_finite else None
    explained = None if report.explained is None else report.explained.share.mean
    gauges = {
        "attribution_worst_nats": None if worst is None else worst.nats,
        "attribution_worst_ratio": None if worst is None else worst.share,
        "attribution_explained_ratio": explained,
    }
    send(gauges, report.labels(), context)


# Causes that somebody can act on are reported of parts that were looked into; the others have no twin.
_UNSEEN: tuple[Cause, str] = ("unclear", "not among the first parts: no twin was run for it")


def ranked_sites(found: Found, context: JobContext) -> tuple[Site, ...]:
    """Parts that were swapped, as the search ranks them. If none could be: gaps of the alignment by nats."""
    if found.search is None or found.full is None or found.subset is None:
        return gap_sites(found)
    made = []
    for measured in found.search.ranked:
        context.check_cancelled()
        made.append(_site(measured, found, found.full, found.subset))
    return tuple(made)


def nowhere_finite_parts(found: Found) -> tuple[NowhereFinite, ...]:
    """What has no number, before all that has."""
    broken = [] if found.search is None else found.search.nowhere_finite
    return tuple(
        NowhereFinite(name=one.site.name, kind=one.site.kind, layer=one.site.layer, tokens=len(one.kl))
        for one in broken
    )


def _site(measured: Measured, found: Found, full: NDArray[np.float32], subset: Subset) -> Site:
    site, kl, seed = measured.site, measured.kl, found.request.seed
    where = subset.where.select(np.arange(len(kl)))
    nats = mean_of(kl.astype(np.float64), where, seed=seed, support=POSITIVE)
    share = ratio(kl, full[: len(kl)], where, seed=seed)
    look = found.examination.looks.get(site.name) if found.examination is not None else None
    module = site.name.rpartition(".")[2]
    told = CauseFound(
        kind=site.kind,
        module=module,
        nats=nats,
        share=share,
        ratio=None if look is None else look.ratio,
        evidence=None if look is None else look.evidence,
    )
    certain = shown(told)
    cause, why = cause_of(told)
    if look is None and cause == "unclear" and certain is not False:
        cause, why = _UNSEEN
    made = Site(
        name=site.name,
        kind=site.kind,
        layer=site.layer,
        nats=nats.mean or 0.0,
        ci=nats.ci,
        share=None if share is None else share.mean,
        share_ci=None if share is None else share.ci,
        restored=None if look is None else look.restored,
        shown=certain,
        control=None if look is None or not math.isfinite(look.control) else look.control,
        isotropic_ratio=None if look is None or look.ratio is None else look.ratio.mean,
        isotropic_ci=None if look is None or look.ratio is None else look.ratio.ci,
        cause=cause,
        unclear=_unclear(certain, looked=look is not None) if cause == "unclear" else None,
        why=why,
        evidence=None if look is None else look.evidence,
        tokens=len(kl),
    )
    return made if look is None else made.model_copy(update={"treatment": treatment(found, [(site, made)])})


def _unclear(certain: bool | None, *, looked: bool) -> Unclear:
    """Which of the three that have no cause a part is."""
    if certain is False:
        return "no_damage_shown"
    return "left_open" if looked else "not_looked_into"


def treatment(found: Found, parts: Sequence[tuple[Part, Site]]) -> Treatment:
    """What fits these parts together, but those whose damage is not shown."""
    unsure = [site for _, site in parts if site.cause != "negligible" and site.shown is False]
    unshown = None
    if unsure and found.subset is not None:
        tokens = max(site.tokens for site in unsure)
        unshown = tokens, int(np.unique(found.subset.where.document[:tokens]).size)
    diagnoses = [(part, site.cause) for part, site in parts if site not in unsure]
    return treat(found.patient(), diagnoses, unshown=unshown)
