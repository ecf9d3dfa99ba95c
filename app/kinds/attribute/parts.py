"""The parts of a model: what each costs, what fits it, whether they add up, and how they were searched for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from markupsafe import Markup

from app.contracts.report import Mean
from app.kinds.attribute.report import AttributeReport, Cause, Site, Unclear
from app.kinds.attribute.words import (
    CAUSES,
    MOST_NAMED,
    NO_INTERVAL,
    blamed_sites,
    cause_of,
    cause_text,
    first_sites,
    leading_sites,
    mean_cell,
    mean_text,
    named,
    on,
    with_intervals,
)
from app.reports import format as fmt
from app.reports.blocks import Block, Cell, Chart, Code, Column, Figure, Figures, Note, Section, Table, filled, fold
from app.reports.charts.bars import Bar, columns_chart, ranked_bars
from app.reports.charts.marks import Guide, axis, interval_strip
from app.reports.scales import LogScale
from app.reports.untrusted import visible

_FIRST_ROWS, _WORST = 20, 3
_COLUMNS = (
    Column("", "name"),
    Column("Part", "text"),
    Column("Nats"),
    Column("With 95 % interval", "chart"),
    Column("Share, %"),
    Column("Restored, nats", priority=1),
    Column("Control", priority=2),
    Column("× noise", priority=1),
    Column("Cause", "text"),
    Column("Tokens", priority=3),
)


def figures(report: AttributeReport) -> list[Block]:
    """What the worst part costs alone and the first ones together, and what restoring them gives back."""
    leading, explained = leading_sites(report), report.explained
    if not leading:
        return []
    site = (blamed_sites(report) or leading)[0]
    share, name = fmt.estimate(site.share, site.share_ci, percent=True), visible(site.name)
    cause = ": ".join(filter(None, (cause_text(site), visible(site.why))))
    found = [
        _figure(_label(report), fmt.estimate(site.nats, site.ci), "nats per token", name),
        _figure("Its share", share, f"% of the whole damage{_on_part(site, report)}", cause),
    ]
    if explained is None:
        found.append(_figure("Regained", mean_text(site.restored), "nats per token without it", name))
        return [Figures(tuple(found), brief=True)]
    parts = f"the first {len(explained.sites)} parts" if len(explained.sites) > 1 else name
    together, restored = (mean_text(mean, percent=True) for mean in (explained.share, explained.restored_share))
    found.append(_figure("Explained", together, "% of it, swapped together", parts))
    if explained.restored_share is not None:
        found.append(_figure("Regained", restored, "% of it, restored together", parts))
    else:
        ratio = fmt.estimate(site.isotropic_ratio, site.isotropic_ci)
        found.append(_figure("Against noise", ratio, "× noise of the same norm", name))
    return [Figures(tuple(found), brief=True)]


def _figure(label: str, estimate: fmt.Estimate, unit: str, note: str) -> Figure:
    return Figure(label, estimate.value, unit, estimate.interval or NO_INTERVAL, note)


def _label(report: AttributeReport) -> str:
    """What the first figure is of. Parts that are finite nowhere have no number."""
    what = "gap" if leading_sites(report)[0].kind == "gap" else "part"
    if report.nowhere_finite:
        return "Worst of the others"
    return f"Worst {what} alone" if blamed_sites(report) else f"Most of any {what}"


def _on_part(site: Site, report: AttributeReport) -> str:
    if report.subset is None or site.tokens >= report.subset.positions:
        return ""
    return f" on the first {fmt.count(site.tokens)} of {fmt.counted(report.subset.positions, 'token')}"


def worst(report: AttributeReport) -> list[Block]:
    """The first parts in a small table; the page has them among all others."""
    rows = _rows(report)[:_WORST]
    kept = [index for index, column in enumerate(_COLUMNS) if column.label in ("Part", "Nats", "Share, %", "Cause")]
    columns = tuple(_COLUMNS[index] for index in kept)
    short = tuple(tuple(row[index] for index in kept) for row in rows)
    return filled(Table("What the worst parts cost alone in the reference", columns, short, brief=True))


def charts(report: AttributeReport) -> list[Block]:
    """The worst parts, and every layer."""
    found: list[Block] = []
    if sites := report.sites[:MOST_NAMED]:
        bars = [Bar(visible(site.name), _bar_text(site), site.nats, site.ci) for site in sites]
        drawn = ranked_bars(bars, title="The worst parts, alone", unit="nats per token; share of the whole damage")
        found.append(Chart(f"The worst parts, each alone in the reference, {_intervals(sites)}", drawn))
    layers = sorted((site for site in report.sites if site.kind == "layer"), key=lambda site: site.layer or 0)
    if len(layers) > 1:
        told = [f"{fmt.estimate(site.nats, site.ci)} nats per token" for site in layers]
        bars = [Bar(str(site.layer), text, site.nats, site.ci) for site, text in zip(layers, told, strict=True)]
        drawn = columns_chart(bars, title="Each layer alone", unit="nats per token", along="layer")
        found.append(Chart(f"Each layer alone in the reference, {_intervals(layers)}", drawn))
    return found


def _bar_text(site: Site) -> str:
    share = fmt.estimate(site.share, site.share_ci, percent=True)
    return f"{fmt.estimate(site.nats, site.ci).value} · {share.value} %"


def _intervals(sites: Sequence[Site]) -> str:
    return with_intervals(any(site.ci is not None for site in sites))


def parts(report: AttributeReport) -> list[Block]:
    """Every part in the order of the report."""
    rows = _rows(report)
    if not rows:
        return []
    table = Table("Parts by what they cost alone", _COLUMNS, rows[:_FIRST_ROWS], _axis(report), "stack strips")
    more = rows[_FIRST_ROWS:]
    rest = filled(replace(table, caption=f"{_FIRST_ROWS + 1} to {len(rows)}", rows=more))
    notes = [Note(note) for note in (sites_note(report), _causes_note(report)) if note]
    return [Section("sites", "Parts", [table, *fold(f"{len(more)} more parts", rest), *notes])]


def _scale(report: AttributeReport) -> LogScale:
    return LogScale.around(*(value for site in report.sites for value in (site.nats, *(site.ci or ())) if value > 0))


def _axis(report: AttributeReport) -> Markup:
    return axis(_scale(report), "nats per token, logarithmic axis")


def _rows(report: AttributeReport) -> tuple[tuple[Cell, ...], ...]:
    scale = _scale(report)
    return tuple(
        (
            Cell(str(number)),
            Cell(visible(site.name), site.kind),
            mean_cell(Mean(mean=site.nats, ci=site.ci), strong=True),
            Cell(chart=interval_strip(_strip_title(site), site.nats, site.ci, scale, [Guide(scale.low, "base")])),
            _ratio_cell(fmt.estimate(site.share, site.share_ci, percent=True)),
            _ratio_cell(mean_text(site.restored)),
            Cell(fmt.NONE if site.control is None else fmt.number(site.control)),
            _ratio_cell(fmt.estimate(site.isotropic_ratio, site.isotropic_ci)),
            Cell(cause_text(site)),
            Cell(fmt.count(site.tokens)),
        )
        for number, site in enumerate(report.sites, 1)
    )


def _strip_title(site: Site) -> str:
    return f"{visible(site.name)}: {fmt.estimate(site.nats, site.ci)} nats"


def _ratio_cell(estimate: fmt.Estimate) -> Cell:
    return Cell(estimate.value, estimate.interval or "")


def sites_note(report: AttributeReport) -> str:
    """What the numbers are of, and whether the controls hold."""
    subset, search = report.subset, report.search
    alignment = None if report.internals is None else report.internals.alignment
    if report.not_swapped and alignment is not None:
        return (
            "Nats are KL(reference ‖ reference with this gap alone), per token, "
            f"{on(alignment.measured)}. The whole candidate loses {mean_text(alignment.total)} there. "
            "Shares are of that and need not sum up."
        )
    if subset is None or search is None or not search.measured:
        return ""
    looked = len(first_sites(report))
    told = [
        "Nats are KL(reference ‖ reference with the candidate’s part), per token, on up to "
        f"{fmt.count(subset.positions)} scored tokens of {fmt.counted(subset.documents, 'document')}.",
        "Shares are of the whole candidate’s KL at the same tokens. They need not sum up: a layer holds its modules.",
        f"The first {looked} of {fmt.counted(search.measured, 'measured part')} were looked into.",
        f"Control, a part swapped by itself ({fmt.count(subset.control_positions)} tokens): {_controls(report)}.",
        "× noise compares with noise of the same norm in a random direction "
        f"({fmt.count(subset.twin_positions)} tokens).",
        _order(report.sites),
        f"Parts that are the reference’s own: {fmt.count(search.unchanged)}.",
    ]
    return " ".join(told)


def _controls(report: AttributeReport) -> str:
    held = [site.control for site in report.sites if site.control is not None]
    if not held:
        return "none was run"
    wrong = sum(map(bool, held))
    return f"NOT 0 for {fmt.counted(wrong, 'part')}" if wrong else f"exactly 0 for {fmt.counted(len(held), 'part')}"


def _order(sites: Sequence[Site]) -> str:
    if len({site.tokens for site in sites}) < 2:
        return "Rows are in the order of nats before rounding."
    return (
        "Parts that were measured on more tokens come first: what was dropped earlier was milder on the same tokens. "
        "Among those of as many tokens the order is that of nats before rounding."
    )


_MEANINGS: Final[dict[Cause | Unclear, str]] = {
    "no_damage_shown": "the interval of its nats reaches 0, and more text may change that",
    "negligible": "its nats are 0, or the interval of its share ends below a thousandth",
    "aligned": "noise of the same norm costs less: the error is where the model is sensitive",
    "size": "noise of the same norm costs as much: only a smaller error helps",
    "sheltered": "noise of the same norm costs more",
    "outlier_channels": "half of the output error comes from 1 % of the input channels",
    "low_rank": "16 directions hold at least half of the output error that noise has outside of them",
    "unclear": "there is damage, or no interval, and no rule finds the cause: it is treated as mere size",
}


def _causes_note(report: AttributeReport) -> str:
    """What the causes mean that the report names."""
    causes = dict.fromkeys(map(cause_of, report.sites))
    told = [f"{CAUSES[cause]}: {_MEANINGS[cause]}" for cause in causes if cause in _MEANINGS]
    return f"{'; '.join(told)}." if told else ""


def treatment(report: AttributeReport) -> list[Block]:
    """What fits each of the leading parts, and all of them together."""
    rows = tuple(
        (
            Cell(visible(site.name)),
            Cell(cause_text(site), visible(site.why)),
            Cell(visible(site.treatment.why)),
            Cell("yes" if site.treatment.recipe else "no"),
        )
        for site in leading_sites(report)
        if site.treatment is not None
    )
    if not rows:
        return []
    columns = (Column("Part", "text"), Column("Cause", "text"), Column("Treatment", "text"), Column("Recipe", "text"))
    of = "gap" if report.not_swapped else "of the first parts"
    table = Table(f"What fits each {of}", columns, rows, style="stack why")
    return [Section("treatment", "Treatment", [table, *_recipe(report)])]


def _recipe(report: AttributeReport) -> list[Block]:
    of = "the first" if report.not_swapped else "all of them together"
    found = report.treatment
    if found is None or not found.recipe:
        why = "" if found is None else visible(found.why)
        return [Note(f"No recipe for {of}. {why}".strip(), kind="plain")]
    steps = ",\n".join(f"  {visible(json.dumps(step, ensure_ascii=False))}" for step in found.recipe)
    return [
        Code(f"[\n{steps}\n]", f"For {of}, as a recipe on the candidate’s alias"),
        Note("It follows from the causes alone and was not measured. A comparison shows what it saves."),
    ]


def additivity(report: AttributeReport) -> list[Block]:
    """Whether the parts add up to the whole, by both engines."""
    whole = report.whole
    blocks: list[Block] = [Note(note, kind="plain")] if (note := additivity_note(report)) else []
    if whole is not None:
        rows_of = (
            ("Engine", whole.engine),
            ("transformers", whole.transformers),
            ("Engine − transformers", whole.difference),
        )
        rows = tuple((Cell(name), mean_cell(mean)) for name, mean in rows_of)
        caption = "The whole candidate’s KL on the subset, by both engines"
        blocks.append(Table(caption, (Column("", "text"), Column("Nats per token")), rows, style="few"))
        blocks.append(
            Note(
                "Parts are swapped through transformers’ layers, and the headline KL is the engine’s. Their difference "
                "is what kernels do. It leaves out windows that begin behind their context."
            )
        )
    return [Section("additivity", "Do they add up", blocks)] if blocks else []


def additivity_note(report: AttributeReport) -> str:
    """Whether the parts add up, in words."""
    found = report.additivity
    if found is None or found.ratio is None:
        return ""
    return (
        f"The whole candidate costs {mean_text(found.ratio)} times the sum of {_summed(found.over)}, each swapped "
        f"alone ({mean_text(found.total)} nats together)."
    )


def _summed(over: Sequence[str]) -> str:
    """What a sum is over: layers by their number, what is outside of them by its name."""
    outside = [visible(name) for name in over if not name.startswith("layers.")]
    count = len(over) - len(outside)
    layers = [f"its {fmt.counted(count, 'layer')} that differ{'s' if count == 1 else ''}"] if count else []
    *others, last = [*layers, *outside]
    return f"{', '.join(others)} and {last}" if others else last


def search(report: AttributeReport) -> list[Block]:
    """What the search for the parts cost."""
    found = report.search
    if found is None or not found.measured:
        return []
    note = (
        f"{found.measured} of {found.considered} parts that differ were measured, for {found.spent:.1f} of "
        f"{found.budget:g} forward passes ({fmt.duration(found.seconds)}). "
        f"Looking into the first parts took {found.looked_into:.1f} more passes."
    )
    return [Section("search", "Search", [Note(note, kind="plain")])]


def nowhere_finite_note(report: AttributeReport) -> str:
    """Which parts are finite nowhere, and so have no number; empty if there is none."""
    found = report.nowhere_finite
    if not found:
        return ""
    names = named([visible(part.name) for part in found], MOST_NAMED)
    tokens = fmt.counted(max(part.tokens for part in found), "token")
    return (
        f"{names}: alone in the reference, no logits are finite at any of {tokens}. Without nats they come before all "
        "other parts, and were not looked into."
    )
