"""The report of an attribute job, from everything that was measured."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.contracts.attribute_blocks import Internals, LayerAlignment, LayerGap
from app.contracts.attribute_report import (
    AttributeReport,
    Cause,
    Explained,
    NowhereFinite,
    Site,
    Treatment,
    Unclear,
    Whole,
)
from app.contracts.attribute_report import Search as SearchBlock
from app.contracts.attribute_report import Subset as SubsetBlock
from app.contracts.calibration_report import Blocks
from app.contracts.report import KernelTerm, Mean
from app.contracts.requests.attribute import AttributeRequest
from app.contracts.text import SelfText
from app.models.checkpoint import CheckpointInfo
from workers.diagnosis.assemble import provenance, repeatable
from workers.diagnosis.attribute.cause import Found as CauseFound
from workers.diagnosis.attribute.cause import cause_of, is_shown, shown
from workers.diagnosis.attribute.control import BATCHES as CONTROL_BATCHES
from workers.diagnosis.attribute.few import fallen_out, on_text, too_few
from workers.diagnosis.attribute.isotropic import batches_of
from workers.diagnosis.attribute.looking import Looking
from workers.diagnosis.attribute.means import POSITIVE, mean_of, ratio
from workers.diagnosis.attribute.putting_back import put_back
from workers.diagnosis.attribute.reach import not_reached
from workers.diagnosis.attribute.scope import Scope, asked_for, nothing_differs, parts_differ
from workers.diagnosis.attribute.search import Measured, Search
from workers.diagnosis.attribute.sites import Site as Part
from workers.diagnosis.attribute.subset import Subset
from workers.diagnosis.attribute.treatment import Patient, treat, waiting
from workers.diagnosis.context import JobContext
from workers.diagnosis.export import export_metrics
from workers.diagnosis.floor import Floor
from workers.diagnosis.gauges import labels_of, send
from workers.diagnosis.mitigate.measuring import PRECISION
from workers.diagnosis.numerals import numeral
from workers.diagnosis.sides import Sides
from workers.diagnosis.summary import summarize
from workers.diagnosis.verdict import decide, not_tested
from workers.distributions.intervals import FEWEST_CLUSTERS
from workers.distributions.token_values import Positions, TokenValues
from workers.engine.device import EngineIdentity
from workers.text.windows import Corpus

SITES_FILE, RECIPE_FILE = "sites.json", "recipe.json"
TOKENS_FILE: Final = "tokens.parquet"
_BLOCKS = tuple(Blocks.model_fields)
# Share of resamplings in which a pair of the alignment is found again, above which it is spoken of.
ALIKE = 0.5
# Parts that a sentence names.
_NAMED = 4
# Causes that somebody can act on are told of parts that were looked into; the others have no twin.
_UNSEEN: tuple[Cause, str] = ("unclear", "not among the first parts: no twin was run for it")


@dataclass
class Found:
    """All that an attribute job found out; the second half only where parts could be swapped."""

    request: AttributeRequest
    sides: Sides
    origin: CheckpointInfo
    corpus: Corpus
    positions: Positions
    values: TokenValues
    floor: Floor
    kernel_term: KernelTerm | None
    engine: EngineIdentity
    reference_from_store: bool
    resumed_windows: int
    started_at: float
    seconds: dict[str, float]
    not_swapped: str = ""
    whole: Whole | None = None
    subset: Subset | None = None
    search: Search | None = None
    looking: Looking | None = None
    internals: Internals | None = None
    full: NDArray[np.float32] | None = None
    scope: Scope = field(default_factory=Scope)
    forward_seconds: float = 0.0
    search_seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)


def build_report(found: Found, context: JobContext) -> AttributeReport:
    """Statistics of the candidate as a whole, and the ranked list of its parts."""
    request, corpus = found.request, found.corpus
    domains = [document.domain for document in corpus.documents]
    summary = summarize(
        found.values,
        found.positions,
        domains,
        window=request.window,
        floor_kl=found.floor.kl,
        seed=request.seed,
        check_cancelled=context.check_cancelled,
    )
    decision = decide(summary.excess, request.thresholds, nonfinite=summary.nonfinite_positions, floor=summary.floor)
    sites = _sites(found, context)
    looking = found.looking
    by_name = {site.name: site for site in sites}
    together = None if looking is None else treatment(found, [(part, by_name[part.name]) for part in looking.first])
    blocks = summary.blocks()
    return AttributeReport(
        job=context.job_id,
        severity=decision.severity,
        verdict=sentence(sites, looking, found),
        decision=decision,
        tokens=summary.tokens,
        documents=summary.documents,
        windows=summary.windows,
        noise_floor=found.floor.report,
        kernel_term=found.kernel_term,
        sites=sites,
        nowhere_finite=_nowhere_finite(found),
        whole=found.whole,
        explained=None if looking is None else looking.explained,
        additivity=None if looking is None else looking.additivity,
        treatment=together or (sites[0].treatment if sites else None),
        search=_search(found),
        subset=_subset(found),
        not_swapped=found.not_swapped,
        internals=found.internals,
        not_tested=not_tested(
            longest_context=int(found.positions.context.max()),
            domains=domains,
            conversations=corpus.conversations,
            whole_conversations=corpus.whole_conversations,
            self_corpus=isinstance(request.text, SelfText),
        ),
        warnings=tuple(_warnings(found, sites, summary.nonfinite_positions)),
        request=repeatable(request),
        provenance=provenance(
            request,
            sides=found.sides,
            corpus=corpus,
            engine=found.engine,
            precision=PRECISION,
            started_at=found.started_at,
            seconds=found.seconds,
            reference_from_store=found.reference_from_store,
            resumed_windows=found.resumed_windows,
        ),
        **{name: blocks[name] for name in _BLOCKS},
    )


def sentence(sites: tuple[Site, ...], looking: Looking | None, found: Found) -> str:
    """What was found, in a sentence or two."""
    if found.not_swapped and sites:
        first = next((site for site in sites if site.shown is not False), sites[0])
        return f"{_worst_gap(first, found)}; parts were not swapped: {found.not_swapped}.{_kept_layers(first, found)}"
    if found.not_swapped:
        return f"No part was swapped: {found.not_swapped}."
    if not found.scope.considered:
        return nothing_differs(found.scope)
    search = found.search
    if search is not None and not search.found:
        return f"{parts_differ(found.scope)}, and the budget did not reach for one of them."
    broken = [] if search is None else search.nowhere_finite
    explained = None if looking is None else looking.explained
    if looking is not None and explained is not None and sites and looking.first:
        told = _worst(sites, looking.first, explained, found)
    elif broken and not sites:
        told = "No other part was measured."
    else:
        which = "the others" if broken else "those"
        told = f"{parts_differ(found.scope)}, and none of {which} that were measured costs anything for sure."
    return f"{_broken(broken, asked_for(found.scope))} {told}" if broken else told


def _kept_layers(gap: Site, found: Found) -> str:
    """What the layers that both models have cost by themselves, where they were changed, too."""
    alignment = None if found.internals is None else found.internals.alignment
    matched = None if alignment is None else alignment.matched
    if matched is None or not matched.mean:
        return ""
    interval = ""
    if matched.ci is not None:
        interval = f" (95 % interval {numeral(matched.ci[0])} to {numeral(matched.ci[1])})"
    more = ", more than that gap" if matched.mean > gap.nats else ""
    return f" The layers that both have are changed, too: they cost {numeral(matched.mean)} nats{interval}{more}."


def _worst_gap(gap: Site, found: Found) -> str:
    """What the first gap costs, on how much text, and whether that has an interval."""
    alignment = None if found.internals is None else found.internals.alignment
    nats = f"{numeral(gap.nats)} nats a token"
    told = f"The worst gap is {gap.name}, which alone costs"
    if gap.shown is False:
        told = f"No gap is shown to cost anything alone: the one that costs most, {gap.name}, costs"
    if alignment is None or gap.share is None:
        return f"{told} {nats}"
    share = _share(Mean(mean=gap.share, ci=gap.share_ci))
    measured = alignment.measured
    on = on_text(measured.tokens, measured.documents)
    none = "" if gap.share_ci is not None else ", which is too little text for an interval"
    return (
        f"{told} {share} of the {_digits(alignment.total.mean)} nats a token "
        f"that the candidate loses on the {on} that gaps were measured on{none}"
    )


def _broken(parts: Sequence[Measured], of: str) -> str:
    """Parts that are finite nowhere, in a sentence. `of`: what of these were asked for, where that is not all."""
    if len(parts) == 1:
        name = parts[0].site.name
        return f"The worst part{of} is {name}: alone in the reference it leaves no logits finite at any token."
    return (
        f"The worst parts{of} are {_some(parts)}: each, alone in the reference, leaves no logits finite at any token."
    )


def _worst(sites: tuple[Site, ...], looked: list[Part], explained: Explained, found: Found) -> str:
    """The first of those that were looked into that costs something for sure, or that none does."""
    by_name = {site.name: site for site in sites}
    mild = {site.name for site in sites if site.cause == "negligible"}
    blamed = [site for one in looked if (site := by_name[one.name]).name not in mild and site.shown is not False]
    first = blamed[0] if blamed else by_name[looked[0].name]
    whole = found.whole.transformers.mean if found.whole is not None else None
    alone = f"{numeral(first.nats)} nats a token"
    if first.share is not None:
        share = _share(Mean(mean=first.share, ci=first.share_ci))
        all_of_it = "all of them cost" if found.scope.whole_model else "the whole candidate costs"
        alone = f"{share} of the {_digits(whole)} nats a token that {all_of_it} on the {_swapped_on(found)}"
        alone += "" if first.share_ci is not None else ", which is too little text for an interval"
    together = ""
    if len(explained.sites) > 1 and explained.share.mean is not None:
        together = f"; the first {len(explained.sites)} parts together cost {_share(explained.share)} of it"
    search = found.search
    of = " of those that were tried" if search is not None and search.untried else ""
    if search is not None and search.nowhere_finite:
        of = " of the others that were tried" if search.untried else " of the others"
    else:
        asked = asked_for(found.scope)
        of += asked.replace(" of ", " in ", 1) if of else asked
    if not blamed:
        what = "none of those that were looked into is shown to cost anything alone"
        if mild.issuperset(one.name for one in looked):
            what = "every one that was looked into is negligible"
        return (
            f"{parts_differ(found.scope)}, and {what}: the one{of} that costs most, {first.name}, costs {alone} "
            f"({first.why}){together}."
        )
    sure = " that costs something for sure" if first.shown else " that is not negligible"
    sure = "" if first.name == looked[0].name else sure
    return f"The worst part{of}{sure} is {first.name}, which alone costs {alone}{together}."


def _swapped_on(found: Found) -> str:
    if found.subset is None:
        return "tokens they were swapped on"
    where = found.subset.where
    return f"{on_text(len(where), int(np.unique(where.document).size))} they were swapped on"


def _sites(found: Found, context: JobContext) -> tuple[Site, ...]:
    if found.search is None or found.full is None or found.subset is None:
        return _gaps(found)
    made = []
    for measured in found.search.ranked:
        context.check_cancelled()
        made.append(_site(measured, found, found.full, found.subset))
    return tuple(made)


def _nowhere_finite(found: Found) -> tuple[NowhereFinite, ...]:
    """What has no number, before all that has."""
    broken = [] if found.search is None else found.search.nowhere_finite
    return tuple(
        NowhereFinite(name=one.site.name, kind=one.site.kind, layer=one.site.layer, tokens=len(one.kl))
        for one in broken
    )


def _gaps(found: Found) -> tuple[Site, ...]:
    """The gaps of the alignment as parts, where the models differ in depth."""
    alignment = found.internals.alignment if found.internals is not None else None
    if alignment is None:
        return ()
    patient = _patient(found)
    made = [_gap(gap, alignment, patient) for gap in alignment.gaps if gap.nats is not None]
    return tuple(sorted(made, key=lambda site: (-site.nats, site.name)))


def _gap(gap: LayerGap, alignment: LayerAlignment, patient: Patient) -> Site:
    nats = gap.nats or Mean(mean=None, ci=None)
    dropped = [one.layer for one in gap.layers if one.kind == "dropped"]
    added = [one.layer for one in gap.layers if one.kind != "dropped"]
    parts = ([f"dropped {_listed(dropped)}"] if dropped else []) + ([f"added {_listed(added)}"] if added else [])
    kinds = sorted({one.kind for one in gap.layers})
    certain = is_shown(nats)
    return Site(
        name=", ".join(parts),
        kind="gap",
        layer=gap.at_reference,
        nats=nats.mean or 0.0,
        ci=nats.ci,
        share=gap.share,
        share_ci=gap.share_ci,
        restored=gap.saved,
        shown=certain,
        control=alignment.control,
        isotropic_ratio=None,
        cause="removed" if dropped else "inserted",
        why=f"{' and '.join(kinds)}; {_found_again(gap.stability, alignment)}",
        treatment=_gap_treatment(nats, certain, alignment, put_back(patient, dropped, added)),
        tokens=alignment.measured.tokens,
        rung=0,
    )


def _gap_treatment(nats: Mean, certain: bool | None, alignment: LayerAlignment, found: Treatment) -> Treatment:
    """What fits a gap, where it is shown to cost anything or has no interval to tell."""
    if (nats.mean or 0.0) <= 0:
        return Treatment(recipe=None, why="nothing to treat: it costs nothing")
    if certain is False:
        return Treatment(recipe=None, why=waiting(alignment.measured.tokens, alignment.measured.documents))
    return found


def _found_again(stability: float | None, alignment: LayerAlignment) -> str:
    documents = alignment.measured.documents
    if stability is None:
        return f"not resampled, with {documents} document{'' if documents == 1 else 's'}"
    drawn = "documents" if documents >= FEWEST_CLUSTERS else "windows"
    return f"found again in {100 * stability:.0f} % of resamplings of the {drawn}"


def _listed(layers: list[int]) -> str:
    return f"layer{'' if len(layers) == 1 else 's'} {', '.join(map(str, layers))}"


def _site(measured: Measured, found: Found, full: NDArray[np.float32], subset: Subset) -> Site:
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
    return treat(_patient(found), diagnoses, unshown=unshown)


def _patient(found: Found) -> Patient:
    return Patient(found.origin, found.request.candidate.recipe, found.sides.reference.info)


def _search(found: Found) -> SearchBlock | None:
    search, looking = found.search, found.looking
    if search is None or looking is None:
        return None
    return SearchBlock(
        budget=search.budget,
        spent=round(search.spent, 3),
        looked_into=round(looking.cost, 3),
        considered=found.scope.considered,
        unchanged=found.scope.unchanged,
        beside=found.scope.beside,
        measured=len(search.found),
        rungs=tuple(search.rungs),
        forward_seconds=round(found.forward_seconds, 4),
        seconds=round(found.search_seconds, 3),
    )


def _subset(found: Found) -> SubsetBlock | None:
    subset, looking = found.subset, found.looking
    if subset is None or looking is None:
        return None
    swapper = looking.swapper
    return SubsetBlock(
        windows=len(subset.windows),
        length=subset.length,
        documents=int(np.unique(subset.where.document).size),
        positions=len(subset.where),
        control_positions=swapper.positions(min(CONTROL_BATCHES, len(swapper.batches))),
        twin_positions=swapper.positions(batches_of(swapper)),
    )


def _warnings(found: Found, sites: tuple[Site, ...], nonfinite: int) -> list[str]:
    told = list(found.warnings)
    if nonfinite:
        told.append(f"{nonfinite} positions had non-finite logits and are left out of every mean.")
    broken = [site.name for site in sites if site.control]
    if broken:
        told.append(
            f"Swapping {', '.join(broken[:4])} by itself changed something, which must not be: the nats of these parts "
            "cannot be trusted."
        )
    told += matched_otherwise(found)
    search = found.search
    if search is not None:
        told += not_finite(search)
        told += not_reached(search)
    told += _too_few(found)
    # of what had nothing to swap, nothing was measured on documents
    if found.subset is not None and (found.search is None or found.search.found):
        told += fallen_out(found.subset.missed)
    return told


def _too_few(found: Found) -> list[str]:
    if found.not_swapped:
        alignment = None if found.internals is None else found.internals.alignment
        if alignment is None:
            return []
        text = alignment.measured
        return too_few(text.tokens, text.windows, text.documents, swapped=False)
    if found.subset is None or found.search is None or not found.search.found:
        return []
    where = found.subset.where
    return too_few(len(where), len(found.subset.windows), int(np.unique(where.document).size), swapped=True)


def not_finite(search: Search) -> list[str]:
    """Parts whose logits are not finite, at all positions or at some."""
    told = []
    nowhere = search.nowhere_finite
    if nowhere:
        told.append(
            f"{_count(nowhere)} made no finite logits at any position ({_some(nowhere)}), and so no nats: worse than "
            "all that have any, looked into no further, and listed before the ranking."
        )
    partly = [one for one in search.ranked if not np.isfinite(one.kl).all()]
    if partly:
        told.append(
            f"{_count(partly)} made logits that are not finite at some positions ({_some(partly)}): "
            f"{'its' if len(partly) == 1 else 'their'} nats are over the other positions."
        )
    return told


def _count(parts: Sequence[Measured]) -> str:
    return "1 part" if len(parts) == 1 else f"{len(parts)} parts"


def _some(parts: Sequence[Measured]) -> str:
    """The first few by name."""
    rest = len(parts) - _NAMED
    return ", ".join(one.site.name for one in parts[:_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def matched_otherwise(found: Found) -> list[str]:
    """Where parts were swapped by their numbers, and most resamplings match layers of other numbers."""
    alignment = None if found.internals is None else found.internals.alignment
    if found.not_swapped or alignment is None:
        return []
    # what could not be resampled is told, too: nothing speaks against it
    other = [
        pair
        for pair in alignment.pairs
        if pair.reference != pair.candidate and (pair.stability is None or pair.stability > ALIKE)
    ]
    if not other:
        return []
    numbers = _listed([pair.candidate for pair in other])
    return [
        f"By their similarity {numbers} of the candidate stand for layers of other numbers in the reference. Parts "
        "were swapped by their numbers: nats there may be those of another layer in a layer's place."
    ]


def export(report: AttributeReport, found: Found, context: JobContext) -> None:
    """Artifacts and metrics."""
    folder = context.output
    sites = [site.model_dump(mode="json") for site in report.sites]
    (folder / SITES_FILE).write_text(json.dumps(sites, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if report.treatment is not None and report.treatment.recipe is not None:
        recipe = json.dumps(list(report.treatment.recipe), indent=2, ensure_ascii=False)
        (folder / RECIPE_FILE).write_text(recipe + "\n", encoding="utf-8")
    documents = found.corpus.documents
    found.values.to_parquet(
        folder / TOKENS_FILE,
        found.positions,
        [document.id for document in documents],
        [document.domain for document in documents],
    )
    export_metrics(report, found.values, found.sides, context)
    # what is finite nowhere is worse than the first that has a number, and has none
    worst = report.sites[0] if report.sites and not report.nowhere_finite else None
    explained = None if report.explained is None else report.explained.share.mean
    gauges = {
        "attribution_worst_nats": None if worst is None else worst.nats,
        "attribution_worst_ratio": None if worst is None else worst.share,
        "attribution_explained_ratio": explained,
    }
    send(gauges, labels_of(found.sides), context)


def _digits(value: float | None) -> str:
    return "unknown" if value is None else numeral(value)


def _percent(share: float | None) -> str:
    return "an unknown share" if share is None else f"{numeral(100 * share)} %"


def _share(share: Mean) -> str:
    if share.ci is None:
        return _percent(share.mean)
    low, high = (numeral(100 * limit) for limit in share.ci)
    return f"{_percent(share.mean)} (95 % interval {low} to {high} %)"
