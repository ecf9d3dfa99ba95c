"""The answer of an attribution in a sentence or two, from the numbers of its report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from app.kinds.attribute.report import AttributeReport, Search, Site, SiteKind
from app.kinds.attribute.request import LEVELS
from app.kinds.attribute.words import blamed_sites, first_sites, leading_sites, mean_text, on
from app.reports import format as fmt

_MOST_NAMED: Final = 4
# So many numbers in a row are named by the first and the last one.
_RUN: Final = 3
_KINDS: Final[dict[SiteKind, str]] = {
    "layer": "layer",
    "module": "linear module",
    "norm": "norm",
    "heads": "group of heads",
    "expert": "expert",
    "embedding": "embedding",
    "head": "head",
}


def sentence(report: AttributeReport) -> str:
    """What was found."""
    search = report.search
    if report.not_swapped and not report.sites:
        return f"No part was swapped: {report.not_swapped}."
    if report.not_swapped:
        return f"{_worst_gap(report)}; parts were not swapped: {report.not_swapped}.{_kept(report)}"
    if search is None or not search.considered:
        return _nothing_differs(report)
    if not search.measured:
        return f"{_differ(search)}, and the budget did not reach any of them."
    return " ".join(filter(None, (_broken(report), _worst(report, search))))


def _worst_gap(report: AttributeReport) -> str:
    """What the first gap costs that costs something for sure; if none does, the one that costs most."""
    blamed = blamed_sites(report)
    site = (blamed or leading_sites(report))[0]
    for_sure = " that costs something for sure" if site is not report.sites[0] and site.shown else ""
    begin = f"The worst gap{for_sure} is {site.name}, which alone costs"
    if not blamed:
        mild = all(gap.cause == "negligible" for gap in report.sites)
        none = "Every gap is negligible" if mild else "No gap is shown to cost anything alone"
        begin = f"{none}: the one that costs most, {site.name}, costs"
    alignment = None if report.internals is None else report.internals.alignment
    if alignment is None or site.share is None:
        return f"{begin} {_nats(site.nats)}"
    whole = _nats(alignment.total.mean)
    return f"{begin} {_share(site)} of the {whole} that the candidate loses {on(alignment.measured)}{_too_little(site)}"


def _kept(report: AttributeReport) -> str:
    """What it costs that matched layers, embedding and head were changed, too."""
    alignment = None if report.internals is None else report.internals.alignment
    if alignment is None or not alignment.matched.mean:
        return ""
    matched = alignment.matched
    sure = matched.ci is None or matched.ci[0] > 0
    more = ", more than any gap" if sure and (matched.mean or 0.0) > max(site.nats for site in report.sites) else ""
    return f" The layers that both models have, embedding and head cost {mean_text(matched)} nats per token{more}."


def _broken(report: AttributeReport) -> str:
    """Parts that are finite nowhere."""
    names = [part.name for part in report.nowhere_finite]
    if not names:
        return ""
    where = _layers_asked(report)
    if len(names) == 1:
        return f"The worst part{where} is {names[0]}: alone in the reference it leaves no logits finite at any token."
    rest = len(names) - _MOST_NAMED
    named = ", ".join(names[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
    return f"The worst parts{where} are {named}: each, alone in the reference, leaves no logits finite at any token."


def _worst(report: AttributeReport, search: Search) -> str:
    """The first part that was looked into and costs something for sure, or that there is none."""
    looked, blamed = first_sites(report), blamed_sites(report)
    if not looked and report.nowhere_finite and not report.sites:
        return "No other part was measured."
    if not looked:
        which = "the others" if report.nowhere_finite else "those"
        return f"{_differ(search)}, and none of {which} that were measured costs anything for sure."
    site = (blamed or looked)[0]
    alone, together = _alone(site, report), _together(site, report)
    if not blamed:
        what = "none of those that were looked into is shown to cost anything alone"
        if all(one.cause == "negligible" for one in looked):
            what = "every one that was looked into is negligible"
        return (
            f"{_differ(search)}, and {what}. The one{_among(report, search)} that costs most, {site.name}, costs "
            f"{alone} ({site.why}){together}."
        )
    sure = "" if site is looked[0] else f" that {'costs something for sure' if site.shown else 'is not negligible'}"
    return (
        f"The worst part{_among(report, search)}{sure} is {site.name}, which alone costs {alone}{together}"
        f"{_holder(site, report)}."
    )


def _alone(site: Site, report: AttributeReport) -> str:
    """What a part costs, of what, on how much text."""
    if site.share is None:
        return f"{_nats(site.nats)}{_text(site, report)}"
    whole = report.whole.transformers.mean if report.whole is not None else None
    if _saw_part(site, report):
        whole = site.nats / site.share if site.share else None
    lost = "what" if whole is None else f"the {_nats(whole)} that"
    return f"{_share(site)} of {lost} the whole candidate loses{_text(site, report)}{_too_little(site)}"


def _text(site: Site, report: AttributeReport) -> str:
    subset = report.subset
    if subset is None:
        return ""
    if _saw_part(site, report):
        return f" on the first {fmt.counted(site.tokens, 'token')}"
    return f" on {fmt.counted(subset.positions, 'token')} of {fmt.counted(subset.documents, 'document')}"


def _saw_part(site: Site, report: AttributeReport) -> bool:
    return report.subset is not None and site.tokens < report.subset.positions


def _together(site: Site, report: AttributeReport) -> str:
    explained = report.explained
    if explained is None or len(explained.sites) < 2 or explained.share.mean is None:
        return ""
    of = "it"
    if _saw_part(site, report) and report.subset is not None:
        of = f"what it loses on all {fmt.counted(report.subset.positions, 'token')}"
    share = mean_text(explained.share, percent=True)
    return f"; the first {len(explained.sites)} parts together cost {share} % of {of}"


def _holder(site: Site, report: AttributeReport) -> str:
    """A layer that holds the part and costs more; nats of other tokens cannot be compared."""
    alike = [one for one in report.sites if one.tokens == site.tokens and site.name.startswith(f"{one.name}.")]
    holder = max(alike, key=lambda one: one.nats, default=None)
    if holder is None or holder.nats <= site.nats:
        return ""
    return f"; {holder.name}, which holds it, costs {_nats(holder.nats)} in all"


def _among(report: AttributeReport, search: Search) -> str:
    """Of which parts the worst one is the worst; empty if all that differs was tried."""
    others = " of the others" if report.nowhere_finite else ""
    tried = f"{others or ' of those'} that were tried" if search.untried else others
    if report.nowhere_finite:
        return tried
    levels = _levels(report)
    kinds = ""
    if search.other_kinds and "layer" not in levels:
        kinds = f" among {_listed([_plural(level) for level in levels], 'and')}"
    return f"{tried}{kinds}{_layers_asked(report)}"


def _layers_asked(report: AttributeReport) -> str:
    layers = _layers(report)
    if layers is None:
        return ""
    return " in the one layer asked for" if len(layers) == 1 else f" in the {len(layers)} layers asked for"


def _nothing_differs(report: AttributeReport) -> str:
    layers, search = _layers(report), report.search
    within = "" if layers is None else layers_in_words(layers)
    if search is not None and search.other_kinds:
        where = f" in {within} differs" if within else " differs, and nothing outside the layers"
        names = _listed([_KINDS[level] for level in _levels(report)], "or")
        return f"No {names}{where}; what does differ: {_counted(search.other_kinds)}."
    if search is not None and search.elsewhere:
        where = f", in {layers_in_words(search.elsewhere_layers)}" if search.elsewhere_layers else ""
        return f"No part of {within} differs; elsewhere there differ {_counted(search.elsewhere)}{where}."
    return "No part differs: every weight of the candidate is the reference’s."


def _differ(search: Search) -> str:
    of = " of the chosen kinds" if search.other_kinds else ""
    return f"1 part{of} differs" if search.considered == 1 else f"{search.considered} parts{of} differ"


def _levels(report: AttributeReport) -> list[SiteKind]:
    """The kinds that were asked for."""
    asked = _asked(report, "levels")
    return [level for level in LEVELS if asked is None or level in asked]


def _layers(report: AttributeReport) -> set[int] | None:
    """The layers that were asked for; None: all."""
    asked = _asked(report, "layers")
    return None if asked is None else set(asked)


def _asked(report: AttributeReport, name: str) -> Sequence[Any] | None:
    asked = (report.request or {}).get(name)
    return asked if isinstance(asked, Sequence) else None


def _counted(kinds: Mapping[SiteKind, int]) -> str:
    counts = ((kinds.get(kind, 0), kind) for kind in _KINDS)
    named = [f"{count} {_KINDS[kind] if count == 1 else _plural(kind)}" for count, kind in counts if count]
    return _listed(named, "and")


def _plural(kind: SiteKind) -> str:
    return "groups of heads" if kind == "heads" else f"{_KINDS[kind]}s"


def _listed(words: Sequence[str], last: str) -> str:
    *others, end = words
    return f"{', '.join(others)} {last} {end}" if others else end


def layers_in_words(numbers: Iterable[int]) -> str:
    """Layers by their numbers, at least one; long runs by their ends."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    named = [f"{run[0]}–{run[-1]}" if len(run) >= _RUN else ", ".join(map(str, run)) for run in runs]
    return f"layer{'' if len(runs) == len(runs[0]) == 1 else 's'} {', '.join(named)}"


def _nats(value: float | None) -> str:
    return f"{fmt.number(value)} nats per token"


def _share(site: Site) -> str:
    return f"{fmt.estimate(site.share, site.share_ci, percent=True)} %"


def _too_little(site: Site) -> str:
    return "" if site.share_ci is not None else ", which is too little text for an interval"
