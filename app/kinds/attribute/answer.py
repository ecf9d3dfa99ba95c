"""The answer of an attribution in a sentence or two, from the numbers of its report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from app.kinds.attribute.report import AttributeReport, Search, Site, SiteKind
from app.kinds.attribute.request import LEVELS
from app.kinds.attribute.words import blamed_sites, first_sites, leading_sites, mean_text, named, on
from app.reports import format as fmt

# So many numbers in a row are named by the first and the last one.
_RUN: Final = 3
_KINDS: Final[dict[SiteKind, str]] = {
    "layer": "layer",
    "module": "linear module",
    "norm": "norm",
    "heads": "group of heads",
    "expert": "expert",
}


def sentence(report: AttributeReport) -> str:
    """What the job found."""
    search = report.search
    if report.not_swapped:
        worst = f"{_worst_gap(report)}. " if report.sites else ""
        return f"{worst}No part was swapped: {report.not_swapped}.{_kept(report)}"
    if search is None or not search.considered:
        return _nothing_differs(report)
    if not search.measured:
        return f"{_differ(search)}, and the budget did not reach any of them."
    return " ".join(filter(None, (_broken(report), _worst(report, search))))


def _worst_gap(report: AttributeReport) -> str:
    """What the first gap costs that costs something for sure; if none does, the one that costs most."""
    blamed = blamed_sites(report)
    site = (blamed or leading_sites(report))[0]
    begin = f"The worst gap is {site.name}, which alone costs"
    if not blamed:
        mild = all(gap.cause == "negligible" for gap in report.sites)
        none = "Every gap is negligible" if mild else "No gap is shown to cost anything alone"
        begin = f"{none}: the one that costs most, {site.name}, costs"
    alignment = None if report.internals is None else report.internals.alignment
    if alignment is None or site.share is None:
        return f"{begin} {_nats(site.nats)}"
    whole = _nats(alignment.total.mean)
    return f"{begin} {_share(site)} of the {whole} that the candidate loses {on(alignment.measured)}"


def _kept(report: AttributeReport) -> str:
    """The cost of all that both models have and that was changed too."""
    alignment = None if report.internals is None else report.internals.alignment
    if alignment is None or not report.sites or not alignment.matched.mean:
        return ""
    cost = mean_text(alignment.matched)
    return f" The layers that both models have, embedding and head cost {cost} nats per token."


def _broken(report: AttributeReport) -> str:
    """Parts that are finite nowhere."""
    names = [part.name for part in report.nowhere_finite]
    if not names:
        return ""
    return (
        f"Alone in the reference, {named(names)} leave{'s' if len(names) == 1 else ''} no finite logits at any token."
    )


def _worst(report: AttributeReport, search: Search) -> str:
    """The first part that was looked into and costs something for sure, or that there is none."""
    looked, blamed = first_sites(report), blamed_sites(report)
    if not looked:
        return f"{_differ(search)}, and no {'other ' if report.nowhere_finite else ''}part costs anything for sure."
    site = (blamed or looked)[0]
    alone, together = _alone(site), _together(report)
    if not blamed:
        mild = all(one.cause == "negligible" for one in looked)
        what = "every one is negligible" if mild else "none is shown to cost anything alone"
        return f"{_differ(search)}, and {what}. {site.name} costs most: {alone} ({site.why}){together}."
    others = " of the others" if report.nowhere_finite else ""
    tried = f"{others or ' of those'} that were tried" if search.untried else others
    return f"The worst part{tried} is {site.name}, which alone costs {alone}{together}."


def _alone(site: Site) -> str:
    """The cost of a part, as a share of what, on how much text."""
    text = f" on {fmt.counted(site.tokens, 'token')}"
    if site.share is None:
        return f"{_nats(site.nats)}{text}"
    whole = site.nats / site.share if site.share else None
    lost = "what" if whole is None else f"the {_nats(whole)} that"
    return f"{_share(site)} of {lost} the whole candidate loses{text}"


def _together(report: AttributeReport) -> str:
    explained = report.explained
    if explained is None or len(explained.sites) < 2 or explained.share.mean is None:
        return ""
    share = mean_text(explained.share, percent=True)
    return f"; the first {len(explained.sites)} parts together cost {share} %"


def _nothing_differs(report: AttributeReport) -> str:
    layers, search = _asked(report, "layers"), report.search
    within = "" if layers is None else f" of {layers_in_words(layers)}"
    if search is not None and search.others:
        levels = _asked(report, "levels") or LEVELS
        names = _listed([name for kind, name in _KINDS.items() if kind in levels])
        return f"No {names}{within} differs; {fmt.counted(search.others, 'part')} of other kinds differ."
    if layers is not None:
        return f"No part{within} differs."
    return "No part differs: every weight of the candidate is the reference’s."


def _differ(search: Search) -> str:
    return "1 part differs" if search.considered == 1 else f"{search.considered} parts differ"


def _asked(report: AttributeReport, name: str) -> Sequence[Any] | None:
    asked = (report.request or {}).get(name)
    return asked if isinstance(asked, Sequence) else None


def _listed(words: Sequence[str]) -> str:
    *others, end = words
    return f"{', '.join(others)} or {end}" if others else end


def layers_in_words(numbers: Iterable[int]) -> str:
    """Layers by their numbers, at least one; long runs by their ends."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    spans = [f"{run[0]}–{run[-1]}" if len(run) >= _RUN else ", ".join(map(str, run)) for run in runs]
    return f"layer{'' if len(runs) == len(runs[0]) == 1 else 's'} {', '.join(spans)}"


def _nats(value: float | None) -> str:
    return f"{fmt.number(value)} nats per token"


def _share(site: Site) -> str:
    return f"{fmt.estimate(site.share, site.share_ci, percent=True)} %"
