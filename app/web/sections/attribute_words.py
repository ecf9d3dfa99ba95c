"""What an attribute job found, in words."""

from __future__ import annotations

import json
from typing import Final

from app.contracts.report import Mean
from app.kinds.attribute.report import AttributeReport, Cause, Pair, Site, Treatment
from app.web import format as fmt
from app.web.sections.words_of_internals import on

SHOWN = 12
CAUSES: Final[dict[Cause, str]] = {
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
MEANING: Final = (
    "no damage shown: the interval of its nats does not lie above 0, which more text may change; unclear: it does, or "
    "there is no interval, and no rule tells the cause, so that it is treated as mere size; negligible: the interval "
    "of its share ends below a thousandth of the damage, or its nats are 0; "
    "aligned error: it points where the model is sensitive, noise of the same norm costs less; mere size: such noise "
    "costs the same, only a smaller error helps; sheltered: such noise costs more; outlier channels, low-rank error: "
    "half of what the part's outputs are off by comes from 1 % of its input channels, or at least halfway from what "
    "independent noise of the same shape has there to all of it from 16 directions."
)


def heading(report: AttributeReport) -> str:
    """The worst part, or that there is none, or none that is shown to be, or none that was tried."""
    if report.nowhere_finite:
        return f"Worst: {report.nowhere_finite[0].name}"
    search = report.search
    if search is not None and not search.measured and (search.considered or search.beside):
        return "No part was tried" if search.considered else "Nothing that was asked for differs"
    if report.not_swapped:
        return _of_unswapped(report)
    blamed = blamed_sites(report)
    if blamed:
        return f"Worst: {blamed[0].name}"
    unsure = any(_unsure(site) for site in first_sites(report))
    return "No part is shown to do damage" if unsure else "No part to blame"


def _of_unswapped(report: AttributeReport) -> str:
    """The heading where no part was swapped: the worst gap, or what both models have where that costs more."""
    if not report.sites and not _kept(report):
        return "No part was swapped"
    if _kept(report) > max((gap.nats for gap in report.sites), default=0.0):
        return "Worst: what both models have"
    if blamed := blamed_sites(report):
        return f"Worst gap: {blamed[0].name}"
    return "No gap is shown to do damage" if any(map(_unsure, report.sites)) else "No gap to blame"


def _kept(report: AttributeReport) -> float:
    """Nats that it costs what models of different depth both have: layers, embedding and head. 0 where its interval
    reaches 0."""
    alignment = None if report.internals is None else report.internals.alignment
    if alignment is None or (alignment.matched.ci is not None and alignment.matched.ci[0] <= 0):
        return 0.0
    return alignment.matched.mean or 0.0


def whole_damage(report: AttributeReport) -> str:
    """The sentence of the verdict's section: what the candidate as a whole costs."""
    kl = fmt.estimate(report.divergence.kl.mean, report.divergence.kl.ci)
    return f"The candidate as a whole loses {kl} nats a token on this text."


def first_sites(report: AttributeReport) -> list[Site]:
    """The parts that were looked into, in their order."""
    names = () if report.explained is None else report.explained.sites
    by_name = {site.name: site for site in report.sites}
    return [by_name[name] for name in names if name in by_name]


def blamed_sites(report: AttributeReport) -> list[Site]:
    """Those that cost something for sure, in their order."""
    sites = first_sites(report) or unswapped(report)
    return [site for site in sites if site.cause != "negligible" and not _unsure(site)]


def _unsure(site: Site) -> bool:
    """Whether no damage of it is shown, and none is excluded."""
    return site.shown is False and site.cause != "negligible"


def unswapped(report: AttributeReport) -> tuple[Site, ...]:
    """The gaps, which are the parts where none was swapped, the worst first."""
    return report.sites if report.not_swapped else ()


def treated_sites(report: AttributeReport) -> list[Site]:
    """Those whose treatment is told: the first parts; where none was swapped every gap."""
    return first_sites(report) or list(unswapped(report))


def share_text(site: Site) -> fmt.Estimate:
    """A part's share in per cent, with its interval."""
    return fmt.estimate(site.share, site.share_ci, percent=True)


def cause_text(site: Site) -> str:
    """The cause of a part in few words: unclear is what has a treatment none the less, as mere size has."""
    if _unsure(site):
        return "no damage shown"
    if site.unclear == "not_looked_into" or (site.cause == "unclear" and site.control is None):
        return "not looked into"
    return CAUSES[site.cause]


def why_text(site: Site) -> str:
    """Why a part has its cause, without the cause's own name."""
    cause = CAUSES[site.cause]
    return "" if site.why == cause else site.why.removeprefix(f"{cause}; ")


def mean_text(mean: Mean | None, *, percent: bool = False) -> fmt.Estimate:
    """A mean with its interval; a dash where there is none."""
    return fmt.Estimate(fmt.NONE, None) if mean is None else fmt.estimate(mean.mean, mean.ci, percent=percent)


def recipe_text(treatment: Treatment | None) -> str:
    """The steps as JSON, one a line; empty where there is none."""
    if treatment is None or not treatment.recipe:
        return ""
    return "[\n" + ",\n".join(f"  {json.dumps(step, ensure_ascii=False)}" for step in treatment.recipe) + "\n]"


def sites_note(report: AttributeReport) -> str:
    """What the table's numbers are, and how far they can be trusted."""
    subset, search = report.subset, report.search
    if unswapped(report):
        return _unswapped_note(report)
    if subset is None or search is None or not search.measured:
        return ""
    held = [site.control for site in report.sites if site.control is not None]
    controls = "none was run"
    if held:
        zero = all(value == 0 for value in held)
        every = "it" if len(held) == 1 else f"all {len(held)} parts"
        controls = f"exactly 0 for {every}" if zero else f"NOT 0 for {fmt.counted(sum(map(bool, held)), 'part')}"
    return (
        "Nats are KL(reference ‖ reference with the candidate’s part), a token, on up to "
        f"{fmt.count(subset.positions)} scored tokens of {subset.documents} documents; shares are of the whole "
        "candidate’s KL at the same tokens and need not sum up. Looked into, with control, noise and treatment, were "
        f"the first {'one' if len(held) == 1 else len(held)} of {fmt.counted(search.measured, 'measured part')}. "
        "Control (a part swapped by itself, "
        f"{fmt.count(subset.control_positions)} tokens): {controls}. × noise: nats over those of noise of the same "
        f"norm in a random direction, {fmt.count(subset.twin_positions)} tokens. Parts lie within each other: a layer "
        f"holds its modules. {_order(report.sites)}, and each number has the digits that its "
        f"interval supports. Parts that are the reference’s own, with nats of exactly 0: {fmt.count(search.unchanged)}."
    )


def _order(sites: tuple[Site, ...]) -> str:
    """In which order the rows are."""
    if len({site.tokens for site in sites}) < 2:
        return "Rows are in the order of nats before rounding"
    return (
        "Parts that were measured on more tokens come first (what was dropped in halving was milder on the same tokens "
        "than what went on), those of as many in the order of nats before rounding"
    )


def _unswapped_note(report: AttributeReport) -> str:
    """What the numbers of gaps are, and on which text."""
    alignment = None if report.internals is None else report.internals.alignment
    if alignment is None:
        return ""
    total = fmt.estimate(alignment.total.mean, alignment.total.ci)
    return (
        "Nats are KL(reference ‖ reference with this gap alone), a token, "
        f"{on(alignment.measured)}, where the whole candidate loses {total}; shares are of that and need not sum up."
    )


def nowhere_finite_note(report: AttributeReport) -> str:
    """Which parts have no number, since they are finite nowhere; empty where there is none."""
    parts = report.nowhere_finite
    if not parts:
        return ""
    rest = len(parts) - SHOWN
    names = ", ".join(part.name for part in parts[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
    tokens = max(part.tokens for part in parts)
    return (
        f"{names}: alone in the reference, no logits are finite at any of {fmt.counted(tokens, 'token')}. There are no "
        f"nats to rank by; {'it stands' if len(parts) == 1 else 'these stand'} before all parts that have some, and "
        f"{'was' if len(parts) == 1 else 'were'} looked into no further."
    )


def additivity_note(report: AttributeReport) -> str:
    """Whether the parts add up, in words."""
    found = report.additivity
    if found is None:
        return ""
    told = []
    if found.ratio is not None and found.over:
        told.append(
            f"The whole candidate costs {mean_text(found.ratio)} times the sum of {_summed(found.over)}, each swapped "
            f"alone ({mean_text(found.total)} nats together)."
        )
    if found.pairs and all(pair.ratio.ci is None for pair in found.pairs):
        told.append(
            f"Without an interval, whether {'two' if len(found.pairs) == 1 else 'pairs'} of the first parts add up is "
            f"not told ({fmt.count(found.pairs_tokens)} tokens)."
        )
    elif found.pairs:
        told.append(f"{_pairs_told(found.pairs)} ({fmt.count(found.pairs_tokens)} tokens).")
    return " ".join(told)


def _summed(over: tuple[str, ...]) -> str:
    """What a sum is over: layers by their number, what stands outside them by its name."""
    outside = [name for name in over if not name.startswith("layers.")]
    count = len(over) - len(outside)
    layers = [f"its {fmt.counted(count, 'layer')} that differ{'s' if count == 1 else ''}"] if count else []
    *others, last = [*layers, *outside]
    return f"{', '.join(others)} and {last}" if others else last


def _pairs_told(pairs: tuple[Pair, ...]) -> str:
    """How many pairs are far from adding up, add up, and are neither for sure."""
    far, near = sum(pair.far for pair in pairs), sum(pair.near for pair in pairs)
    if len(pairs) == 1:
        if far or near:
            return f"The one pair of first parts {'is far from adding up' if far else 'adds up to within a tenth'}"
        return (
            "Whether the one pair of first parts adds up is undecided: neither that nor that it is far from it is shown"
        )
    undecided = len(pairs) - far - near
    told = [f"{near} add{'s' if near == 1 else ''} up to within a tenth"] if near else []
    told += [f"{undecided} {'is' if undecided == 1 else 'are'} undecided"] if undecided else []
    of = f"of {len(pairs)} pairs of the first parts"
    if not far:
        return f"None {of} is shown to be far from adding up: {', '.join(told)}"
    return ", ".join([f"{far} {of} {'is' if far == 1 else 'are'} far from adding up", *told])


def whole_note(report: AttributeReport) -> str:
    """Why two engines are shown."""
    if report.whole is None:
        return ""
    return (
        "Suffix runs go through transformers’ layers; the report’s headline KL is the engine’s. Both are on the part "
        "of the text that parts were swapped on, so that their difference is what kernels, not weights, do; the "
        "engine’s and the difference leave out windows that were begun behind their context."
    )


def search_note(report: AttributeReport) -> str:
    """What the search cost."""
    search = report.search
    if search is None or not search.considered:
        return ""
    return (
        f"{search.measured} of {search.considered} parts that differ were measured, for {search.spent:.1f} of "
        f"{search.budget:g} forward passes ({fmt.duration(search.seconds)}; a pass of a whole model over the subset "
        f"by the same layers, with one product with the head, took {fmt.duration(search.forward_seconds)}); "
        "looking into the first ones took "
        f"{search.looked_into:.1f} more."
    )
