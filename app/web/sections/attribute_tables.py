"""The tables of what an attribute job found."""

from __future__ import annotations

from app.kinds.attribute.report import AttributeReport, Pair
from app.reports.blocks import Cell, Column, Table
from app.web import format as fmt
from app.web.charts import Guide, axis, interval_strip
from app.web.scales import LogScale
from app.web.sections.attribute_words import cause_text, mean_text, share_text, treated_sites, why_text
from app.web.untrusted import visible


def sites_table(report: AttributeReport, first: int, last: int) -> Table:
    """Rows `first` to before `last` of the parts, in the order of the report."""
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


def treatments_table(report: AttributeReport) -> Table:
    """What fits each part that was looked into."""
    rows = []
    for site in treated_sites(report):
        treatment = site.treatment
        if treatment is None:
            continue
        rows.append(
            (
                Cell(site.name),
                Cell(cause_text(site), visible(why_text(site))),
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


def pairs_table(report: AttributeReport) -> Table:
    """Pairs of the first parts, swapped together."""
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


def whole_table(report: AttributeReport) -> Table:
    """The whole candidate by the engine and by transformers."""
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


def search_table(report: AttributeReport) -> Table:
    """The rungs of successive halving."""
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
