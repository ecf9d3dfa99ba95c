"""The parts of a report, from what was measured of each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from app.kinds.attribute.blocks import SiteClass
from app.kinds.attribute.report import Cause, NowhereFinite, Site, Treatment, Unclear
from workers.diagnosis.attribute.cause import Found as CauseFound
from workers.diagnosis.attribute.cause import cause_of, shown
from workers.diagnosis.attribute.found import Found
from workers.diagnosis.attribute.gaps import gap_sites
from workers.diagnosis.attribute.kinds import MOST_PARTS, holm_over
from workers.diagnosis.attribute.search import Measured
from workers.diagnosis.attribute.sites import Site as Part
from workers.diagnosis.attribute.subset import Subset
from workers.diagnosis.attribute.treatment import treat
from workers.measuring.means import POSITIVE, mean_of, ratio
from workers.process.handler import JobContext

# Causes that somebody can act on are told of parts that were looked into; the others have no twin.
_UNSEEN: tuple[Cause, str] = ("unclear", "not among the first parts: no twin was run for it")


def ranked_sites(found: Found, context: JobContext) -> tuple[Site, ...]:
    """Parts that were swapped, as the search ranks them; where none could be, gaps of the alignment by nats."""
    if found.search is None or found.full is None or found.subset is None:
        return gap_sites(found)
    made = []
    for number, measured in enumerate(found.search.ranked):
        context.check_cancelled()
        made.append(_site(measured, found, found.full, found.subset, by_kind=number < MOST_PARTS))
    return holm_over(made)


def nowhere_finite_parts(found: Found) -> tuple[NowhereFinite, ...]:
    """What has no number, before all that has."""
    broken = [] if found.search is None else found.search.nowhere_finite
    return tuple(
        NowhereFinite(name=one.site.name, kind=one.site.kind, layer=one.site.layer, tokens=len(one.kl))
        for one in broken
    )


def _site(measured: Measured, found: Found, full: NDArray[np.float32], subset: Subset, *, by_kind: bool) -> Site:
    site, kl, seed = measured.site, measured.kl, found.request.seed
    where = subset.where.select(np.arange(len(kl)))
    nats = mean_of(kl.astype(np.float64), where, seed=seed, support=POSITIVE)
    share = ratio(kl, full[: len(kl)], where, seed=seed)
    look = found.looking.looks.get(site.name) if found.looking is not None else None
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
    classes: tuple[SiteClass, ...] = ()
    if found.kinds is not None and (by_kind or look is not None):
        classes = found.kinds.spread(
            kl, restored=None if look is None else look.restored_by_kind, judged=look is not None
        )
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
        rung=measured.rung,
        classes=classes,
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
