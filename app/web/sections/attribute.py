"""What an attribute job found: the worst parts with intervals, their causes and treatments, and whether they add up."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from app.contracts.attribute_report import AttributeReport, Cause, Pair, Site, Treatment
from app.contracts.report import Mean
from app.web import format as fmt
from app.web.charts import Guide, axis, interval_strip
from app.web.charts_bars import Bar, columns_chart, ranked_bars
from app.web.scales import LogScale
from app.web.sections.numbers import Figure
from app.web.sections.words_of_internals import on
from app.web.tables import Cell, Column, Table
from app.web.untrusted import visible

SHOWN, FIRST_ROWS = 12, 20
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
    "half of what the part's outputs are off by comes from 1 % of its input channels, or from 16 directions."
)


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
        sites=_sites(report, 0, FIRST_ROWS),
        more=_sites(report, FIRST_ROWS, len(report.sites)),
        meaning=MEANING,
        sites_note=sites_note(report),
        recipe=recipe_text(report.treatment),
        treatments=_treatments(report),
        treatment_note="" if report.treatment is None else visible(report.treatment.why),
        pairs=_pairs(report),
        additivity=additivity_note(report),
        whole=_whole(report),
        whole_note=whole_note(report),
        search=_search(report),
        search_note=search_note(report),
    )


def heading(report: AttributeReport) -> str:
    """The worst part, or that there is none, or none that is shown to be, or none that was tried."""
    if report.nowhere_finite:
        return f"Worst: {report.nowhere_finite[0].name}"
    search = report.search
    if search is not None and not search.measured and (search.considered or search.beside):
        return "No part was tried" if search.considered else "Nothing that was asked for differs"
    blamed = _blamed(report)
    if blamed and report.not_swapped:
        worse = _kept_layers(report) > blamed[0].nats
        return "Worst: the layers that both models have" if worse else f"Worst gap: {blamed[0].name}"
    if blamed:
        return f"Worst: {blamed[0].name}"
    if report.not_swapped:
        return "No gap is shown to do damage" if any(map(_unsure, gaps(report))) else "No part was swapped"
    unsure = any(_unsure(site) for site in first_sites(report))
    return "No part is shown to do damage" if unsure else "No part to blame"


def _kept_layers(report: AttributeReport) -> float:
    """Nats that the layers cost which models of different depth both have."""
    alignment = None if report.internals is None else report.internals.alignment
    return 0.0 if alignment is None or alignment.matched is None else alignment.matched.mean or 0.0


def whole_damage(report: AttributeReport) -> str:
    """The sentence of the verdict's section: what the candidate as a whole costs."""
    kl = fmt.estimate(report.divergence.kl.mean, report.divergence.kl.ci)
    return f"The candidate as a whole loses {kl} nats a token on this text."


def first_sites(report: AttributeReport) -> list[Site]:
    """The parts that were looked into, in their order."""
    names = () if report.explained is None else report.explained.sites
    by_name = {site.name: site for site in report.sites}
    return [by_name[name] for name in names if name in by_name]


def _blamed(report: AttributeReport) -> list[Site]:
    """Those that cost something for sure, in their order."""
    return [site for site in first_sites(report) or gaps(report) if site.cause != "negligible" and not _unsure(site)]


def _unsure(site: Site) -> bool:
    """Whether no damage of it is shown, and none is excluded."""
    return site.shown is False and site.cause != "negligible"


def gaps(report: AttributeReport) -> list[Site]:
    """Layers without a partner, the worst first: what is blamed where the models differ in depth."""
    return [site for site in report.sites if site.kind == "gap"]


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
    if gaps(report):
        return _gaps_note(report)
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
        "holds its modules. Rows are in the order of nats before rounding, and each number has the digits that its "
        f"interval supports. Parts that are the reference’s own, with nats of exactly 0: {fmt.count(search.unchanged)}."
    )


def _gaps_note(report: AttributeReport) -> str:
    """What the numbers of gaps are, and on which text."""
    alignment = None if report.internals is None else report.internals.alignment
    if alignment is None:
        return ""
    total = fmt.estimate(alignment.total.mean, alignment.total.ci)
    return (
        f"Nats are KL(reference ‖ reference with this gap alone), a token, {on(alignment.measured)}, where the whole "
        f"candidate loses {total}; shares are of that and need not sum up."
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
    far, near = sum(pair.far for pair in pairs), sum(bool(pair.near) for pair in pairs)
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
        f"{search.budget:g} forward passes ({fmt.duration(search.seconds)}; the first pass of a whole model over the "
        f"subset, which reads its weights and keeps its states, took {fmt.duration(search.forward_seconds)}); "
        "looking into the first ones took "
        f"{search.looked_into:.1f} more."
    )


def _figures(report: AttributeReport) -> tuple[Figure, ...]:
    first, explained = first_sites(report) or gaps(report), report.explained
    if not first:
        return ()
    blamed = _blamed(report)
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
            "% of the whole damage",
            share.interval or "no interval",
            f"{cause_text(worst)}: {worst.why}" if worst.why else cause_text(worst),
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


def _sites(report: AttributeReport, first: int, last: int) -> Table:
    rows = report.sites[first:last]
    scale = LogScale.around(*(value for site in report.sites for value in (site.nats, *(site.ci or ())) if value > 0))
    made = []
    for number, site in enumerate(rows, first + 1):
        nats, share = fmt.estimate(site.nats, site.ci), share_text(site)
        ratio = fmt.estimate(site.isotropic_ratio, site.isotropic_ci)
        restored = mean_text(site.restored)
        made.append(
            (
                Cell(str(number)),
                Cell(site.name, site.kind),
                Cell(nats.value, nats.interval or "no interval", strong=True),
                Cell(
                    chart=interval_strip(
                        f"{site.name}: {nats} nats", site.nats, site.ci, scale, [Guide(scale.low, "base")]
                    )
                ),
                Cell(share.value, share.interval or ""),
                Cell(restored.value, restored.interval or ""),
                Cell(fmt.NONE if site.control is None else fmt.number(site.control)),
                Cell(ratio.value, ratio.interval or ""),
                Cell(cause_text(site)),
                Cell(fmt.count(site.tokens)),
            )
        )
    return Table(
        caption="Parts by what they cost alone" if not first else f"{first + 1} to {first + len(rows)}",
        columns=(
            Column("", "name"),
            Column("Part", "text"),
            Column("Nats"),
            Column("With 95 % interval", "chart"),
            Column("Share, %"),
            Column("Restored, nats"),
            Column("Control"),
            Column("× noise"),
            Column("Cause", "text"),
            Column("Tokens"),
        ),
        rows=tuple(made),
        axis=axis(scale, "nats a token, logarithmic axis"),
    )


def _treatments(report: AttributeReport) -> Table:
    rows = []
    for site in first_sites(report) or gaps(report):
        treatment = site.treatment
        if treatment is None:
            continue
        rows.append(
            (
                Cell(site.name),
                Cell(cause_text(site), visible(site.why)),
                Cell(visible(treatment.why)),
                Cell("yes" if treatment.recipe else "no"),
            )
        )
    return Table(
        caption="What fits each gap" if report.not_swapped else "What fits each of the first parts",
        columns=(
            Column("Part", "text"),
            Column("Cause", "text"),
            Column("Treatment", "text"),
            Column("Recipe", "text"),
        ),
        rows=tuple(rows),
    )


def _pairs(report: AttributeReport) -> Table:
    rows = []
    for pair in report.additivity.pairs if report.additivity is not None else ():
        together, ratio = mean_text(pair.together), mean_text(pair.ratio)
        rows.append(
            (
                Cell(f"{pair.first} with {pair.second}", _pair_told(pair)),
                Cell(together.value, together.interval or "no interval"),
                Cell(ratio.value, ratio.interval or "no interval", strong=pair.far),
            )
        )
    return Table(
        caption="Pairs, swapped together",
        columns=(Column("Pair", "text"), Column("Nats together"), Column("Over their sum")),
        rows=tuple(rows),
    )


def _pair_told(pair: Pair) -> str:
    if pair.far:
        return "far from adding up"
    if pair.near:
        return "adds up to within a tenth"
    return "" if pair.ratio.ci is None else "undecided"


def _whole(report: AttributeReport) -> Table:
    rows = []
    if report.whole is not None:
        for name, mean in (
            ("Engine", report.whole.engine),
            ("transformers", report.whole.transformers),
            ("Engine − transformers", report.whole.difference),
        ):
            text = mean_text(mean)
            rows.append((Cell(name), Cell(text.value, text.interval or "no interval")))
    return Table(
        caption="The whole candidate’s KL on the subset, by both engines",
        columns=(Column("", "text"), Column("Nats a token")),
        rows=tuple(rows),
    )


def _search(report: AttributeReport) -> Table:
    rows = []
    for number, rung in enumerate(report.search.rungs if report.search is not None else (), 1):
        stage = "layers and what stands outside" if rung.stage == "layers" else "what is in them"
        rows.append(
            (
                Cell(str(number)),
                Cell(stage),
                Cell(fmt.count(rung.sites)),
                Cell(fmt.count(rung.tokens)),
                Cell(fmt.count(rung.kept)),
                Cell(fmt.number(rung.cost)),
            )
        )
    return Table(
        caption="Successive halving",
        columns=(
            Column("Step", "name"),
            Column("Of", "text"),
            Column("Parts"),
            Column("Tokens each"),
            Column("Go on"),
            Column("Forward passes"),
        ),
        rows=tuple(rows),
    )
