"""Which kinds of token each of the worst parts hurts: numbers, code, JSON and so on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from app.contracts.report import Mean
from app.kinds.attribute.blocks import SiteClass
from app.kinds.attribute.report import AttributeReport, Site, SubsetClasses
from app.kinds.attribute.words import NO_INTERVAL, first_sites, mean_cell
from app.reports import format as fmt
from app.reports.blocks import Block, Cell, Column, Fact, Facts, Note, Section, Table, fold
from app.reports.classes import LEVEL, NONE, listed, lowered
from app.reports.untrusted import visible

# Columns of a table; the first table has the whole candidate in one. Parts that the page has in all.
_BESIDE: Final = 4
_PARTS: Final = 11


@dataclass(frozen=True)
class _PartCells:
    """A column: the cells of a part by the name of the kind; that of all tokens has an empty one."""

    name: str
    cells: dict[str, Cell]


def token_classes(report: AttributeReport) -> list[Block]:
    """The section; none if nothing was measured layer by layer, or no part was tried."""
    found = report.token_classes
    if found is None or not found.parts:
        return []
    sites = _shown(report)
    restored = [site for site in sites if any(one.restored is not None for one in site.classes)]
    kinds = "by kind of the predicted token"
    costs = [_cost(report, site) for site in sites]
    table = _table(found, f"The worst parts {kinds}", [_whole(report, found), *costs[: _BESIDE - 1]])
    further = [_table(found, f"Further parts {kinds}", some) for some in _beside(costs[_BESIDE - 1 :])]
    gains = [*map(_restored, restored)]
    further += [_table(found, f"What restoring a part gains {kinds}", some) for some in _beside(gains)]
    sentence = class_sentence(report)
    meanings = tuple(Fact(visible(one.title), visible(one.definition)) for one in found.classes)
    blocks = [
        *([Note(sentence, kind="plain")] if sentence else []),
        table,
        Note(_note(found, report)),
        *fold("Further parts, and what restoring gains", further),
        *fold("What each class is", [Facts(meanings, style="facts wide")] if meanings else []),
    ]
    return [Section("classes", "Which tokens", blocks, "Kinds of token")]


def class_sentence(report: AttributeReport) -> str:
    """Which kinds of token each of the first parts hurts more than all others, and which less, beyond chance."""
    found = report.token_classes
    looked = first_sites(report)
    if found is None or not found.parts or not looked:
        return ""
    parts = [visible(f"{site.name} costs {against}") for site in looked if (against := _against(site, found))]
    if parts:
        return f"{'; '.join(parts)}. Each is compared with the part’s own mean on all other tokens."
    if not found.judged:
        return "Too few documents hold these kinds of token to compare them."
    return "No part is shown to hurt one kind of token more or less than the others, over all parts and kinds."


def _against(site: Site, found: SubsetClasses) -> str:
    titles = {one.name: lowered(one.title) for one in found.classes}
    sure = [
        (one.difference.mean, titles.get(one.name, one.name))
        for one in site.classes
        if _is_sure(one) and one.difference is not None and one.difference.mean
    ]
    sure.sort(key=lambda pair: -abs(pair[0]))
    more, less = ([name for gap, name in sure if gap * sign > 0] for sign in (1, -1))
    named = (("more", more), ("less", less))
    return " and ".join(f"{word} on {listed(names)}" for word, names in named if names)


def _is_sure(one: SiteClass) -> bool:
    return one.p_value is not None and one.p_value < LEVEL


def _shown(report: AttributeReport) -> list[Site]:
    """The parts that were looked into, then the others as they are ranked."""
    first = first_sites(report)
    others = [site for site in report.sites if site not in first]
    return [site for site in (*first, *others) if site.classes][:_PARTS]


def _beside(columns: Sequence[_PartCells]) -> list[Sequence[_PartCells]]:
    return [columns[start : start + _BESIDE] for start in range(0, len(columns), _BESIDE)]


def _table(found: SubsetClasses, caption: str, columns: Sequence[_PartCells]) -> Table:
    """A row for each kind, a column for each part."""
    kinds = [("", "All tokens", found.positions)]
    kinds += [(one.name, visible(one.title), one.tokens) for one in found.classes]
    kinds += [("none", NONE, found.none)] if found.none else []
    headings = (Column(f"{visible(one.name)}, nats", priority=max(0, index - 1)) for index, one in enumerate(columns))
    rows = tuple(
        (
            Cell(title, f"{fmt.counted(tokens, 'token')}, {fmt.percent(tokens / max(1, found.positions))} %"),
            *(one.cells.get(name, Cell(fmt.NONE)) for one in columns),
        )
        for name, title, tokens in kinds
    )
    return Table(caption, (Column("Kind", "name"), *headings), rows, style="stack strips")


def _whole(report: AttributeReport, found: SubsetClasses) -> _PartCells:
    alignment = None if report.internals is None else report.internals.alignment
    total = report.whole.transformers if report.whole is not None else None if alignment is None else alignment.total
    every = {} if total is None else {"": mean_cell(total)}
    return _PartCells("Whole candidate", every | _class_cells(found.whole))


def _cost(report: AttributeReport, site: Site) -> _PartCells:
    """What a part costs, alone in the reference."""
    every = mean_cell(Mean(mean=site.nats, ci=site.ci))
    if report.subset is not None and site.tokens < report.subset.positions:
        every = replace(every, note=f"{every.note}, on the first {fmt.counted(site.tokens, 'token')}")
    return _PartCells(site.name, {"": every} | _class_cells(site.classes))


def _restored(site: Site) -> _PartCells:
    """What the candidate gains if a part is the reference's again."""
    gains = {"": site.restored} | {one.name: one.restored for one in site.classes}
    return _PartCells(site.name, {kind: mean_cell(gain) for kind, gain in gains.items() if gain is not None})


def _class_cells(classes: Sequence[SiteClass]) -> dict[str, Cell]:
    cells = {}
    for one in classes:
        cell = mean_cell(one.nats, strong=_is_sure(one))
        share = "" if one.share is None else f", {fmt.percent(one.share)} % of it"
        cells[one.name] = replace(cell, note=f"{cell.note or NO_INTERVAL}{share}")
    return cells


def _note(found: SubsetClasses, report: AttributeReport) -> str:
    """What the numbers are, and what so many of them mean."""
    count = len(report.sites)
    of = f"all {fmt.counted(count, 'part')}" if found.parts == count else f"the first {found.parts} of {count} parts"
    lines = [
        "Mean nats over the tokens of a kind, and the kind’s share of the part’s summed nats. A token may be of "
        "several kinds, so that shares do not add up.",
        f"Kinds are reported of {of}. A kind in too few documents has no interval and is not judged.",
    ]
    if found.parts > _PARTS:
        lines.append(f"{_PARTS} of these parts are here, those that were looked into first. The JSON report has all.")
    if report.not_swapped:
        lines.append("Tokens are all those of the windows that parts were measured on, scored or not.")
    if found.judged:
        lines.append(
            "Bold: the part differs, on the tokens of this kind, from its own mean on all others "
            f"(p < {LEVEL:g}, adjusted over {fmt.counted(found.judged, 'difference')} by Holm’s rule)."
        )
    if found.absent:
        lines.append(f"Not in this part of the text: {', '.join(map(visible, found.absent))}.")
    return " ".join(lines)
