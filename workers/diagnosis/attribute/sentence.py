"""What was found, in a sentence or two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.contracts.report import Mean
from app.kinds.attribute.report import Explained, Site
from workers.analysis.numerals import numeral
from workers.diagnosis.attribute.few import on_text
from workers.diagnosis.attribute.found import Found
from workers.diagnosis.attribute.looking import Looking
from workers.diagnosis.attribute.naming import some
from workers.diagnosis.attribute.scope import asked_for, nothing_differs, parts_differ
from workers.diagnosis.attribute.search import Measured
from workers.diagnosis.attribute.sites import Site as Part


def sentence(sites: tuple[Site, ...], looking: Looking | None, found: Found) -> str:
    """What was found, in a sentence or two."""
    if found.not_swapped and sites:
        kept = _kept(max(site.nats for site in sites), found)
        return f"{_worst_gap(sites, found)}; parts were not swapped: {found.not_swapped}.{kept}"
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


def _kept(worst: float, found: Found) -> str:
    """What both models have costs by itself, where it was changed, too. `worst`: nats of the worst gap."""
    alignment = None if found.internals is None else found.internals.alignment
    matched = None if alignment is None else alignment.matched
    if matched is None or not matched.mean:
        return ""
    interval = ""
    if matched.ci is not None:
        interval = f" (95 % interval {numeral(matched.ci[0])} to {numeral(matched.ci[1])})"
    sure = matched.ci is None or matched.ci[0] > 0
    more = ", more than any gap" if sure and matched.mean > worst else ""
    cost = f"it costs {numeral(matched.mean)} nats{interval}{more}"
    return f" What both models have, layers, embedding and head, is changed, too: {cost}."


def _worst_gap(sites: tuple[Site, ...], found: Found) -> str:
    """What the first gap that costs something for sure costs, on how much text, and whether that has an interval; the
    one that costs most where none does."""
    blamed = [site for site in sites if site.cause != "negligible" and site.shown is not False]
    worst = blamed[0] if blamed else sites[0]
    nats = f"{numeral(worst.nats)} nats a token"
    for_sure = " that costs something for sure" if worst is not sites[0] and worst.shown is True else ""
    told = f"The worst gap{for_sure} is {worst.name}, which alone costs"
    if not blamed:
        mild = all(site.cause == "negligible" for site in sites)
        none = "Every gap is negligible" if mild else "No gap is shown to cost anything alone"
        told = f"{none}: the one that costs most, {worst.name}, costs"
    alignment = None if found.internals is None else found.internals.alignment
    if alignment is None or worst.share is None:
        return f"{told} {nats}"
    measured = alignment.measured
    none = "" if worst.share_ci is not None else ", which is too little text for an interval"
    return (
        f"{told} {_share(Mean(mean=worst.share, ci=worst.share_ci))} of the {_digits(alignment.total.mean)} nats a "
        f"token that the candidate loses on the {on_text(measured.tokens, measured.documents)} that gaps were measured "
        f"on{none}"
    )


def _broken(parts: Sequence[Measured], of: str) -> str:
    """Parts that are finite nowhere, in a sentence. `of`: what of these were asked for, where that is not all."""
    if len(parts) == 1:
        name = parts[0].site.name
        return f"The worst part{of} is {name}: alone in the reference it leaves no logits finite at any token."
    return f"The worst parts{of} are {some(parts)}: each, alone in the reference, leaves no logits finite at any token."


def _worst(sites: tuple[Site, ...], looked: list[Part], explained: Explained, found: Found) -> str:
    """The first of those that were looked into that costs something for sure, or that none does."""
    by_name = {site.name: site for site in sites}
    mild = {site.name for site in sites if site.cause == "negligible"}
    blamed = [site for one in looked if (site := by_name[one.name]).name not in mild and site.shown is not False]
    first = blamed[0] if blamed else by_name[looked[0].name]
    measured = _measured_on(first, found)
    all_of_it = "all of them cost" if found.scope.whole_model else "the whole candidate costs"
    alone = f"{numeral(first.nats)} nats a token{f' on the {measured.text}' if measured.partly else ''}"
    if first.share is not None:
        share = _share(Mean(mean=first.share, ci=first.share_ci))
        alone = f"{share} of the {_digits(measured.whole)} nats a token that {all_of_it} on the {measured.text}"
        alone += "" if first.share_ci is not None else ", which is too little text for an interval"
    together = ""
    if len(explained.sites) > 1 and explained.share.mean is not None:
        of_it = "it"
        if measured.partly:
            of_it = f"the {_digits(_whole(found))} nats a token that {all_of_it} on all {_swapped_on(found)}"
        together = f"; the first {len(explained.sites)} parts together cost {_share(explained.share)} of {of_it}"
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
    # nats of other tokens say nothing of which costs more
    alike = [site for site in sites if site.tokens == first.tokens and first.name.startswith(f"{site.name}.")]
    holder = max(alike, key=lambda one: one.nats, default=None)
    held = ""
    if holder is not None and holder.nats > first.nats:
        held = f"; {holder.name}, which holds it, costs {numeral(holder.nats)} nats a token in all"
    return f"The worst part{of}{sure} is {first.name}, which alone costs {alone}{together}{held}."


def _swapped_on(found: Found) -> str:
    if found.subset is None:
        return "tokens they were swapped on"
    where = found.subset.where
    return f"{on_text(len(where), int(np.unique(where.document).size))} they were swapped on"


@dataclass(frozen=True)
class _MeasuredOn:
    """The text that a part was measured on, in words, and nats of the whole candidate there; `partly`: it is the first
    part of what others were swapped on."""

    text: str
    whole: float | None
    partly: bool = False


def _measured_on(part: Site, found: Found) -> _MeasuredOn:
    where = None if found.subset is None else found.subset.where
    if where is None or part.tokens >= len(where):
        return _MeasuredOn(_swapped_on(found), _whole(found))
    documents = int(np.unique(where.document[: part.tokens]).size)
    whole = None
    if found.full is not None and (finite := np.isfinite(found.full[: part.tokens])).any():
        whole = float(found.full[: part.tokens][finite].mean(dtype=np.float64))
    return _MeasuredOn(f"{on_text(part.tokens, documents)} that it was measured on", whole, partly=True)


def _whole(found: Found) -> float | None:
    """Nats of the whole candidate on all of the text that parts were swapped on."""
    return found.whole.transformers.mean if found.whole is not None else None


def _digits(value: float | None) -> str:
    return "unknown" if value is None else numeral(value)


def _percent(share: float | None) -> str:
    return "an unknown share" if share is None else f"{numeral(100 * share)} %"


def _share(share: Mean) -> str:
    if share.ci is None:
        return _percent(share.mean)
    low, high = (numeral(100 * limit) for limit in share.ci)
    return f"{_percent(share.mean)} (95 % interval {low} to {high} %)"
