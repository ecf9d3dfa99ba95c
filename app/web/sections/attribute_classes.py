"""Which kinds of token each of the worst parts hurts: numbers, code, JSON and so on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from app.contracts.report import Mean
from app.kinds.attribute.blocks import SiteClass
from app.kinds.attribute.report import AttributeReport, Site, SubsetClasses
from app.reports.blocks import Cell, Column, Fact, Table
from app.web import format as fmt
from app.web.sections.attribute_words import first_sites, mean_text
from app.web.sections.classes import LEVEL, NONE, listed, lowered
from app.web.untrusted import visible

# Columns of a table, of which the first one has the whole candidate in one, and the parts that the page has in all.
_BESIDE: Final = 4
_PARTS: Final = 11
_IN_NONE: Final = "none"
_BY_KIND: Final = "by kind of the predicted token"


@dataclass(frozen=True)
class _PartCells:
    """A column: the cells of a part by the name of the kind, that of all tokens under an empty one."""

    name: str
    cells: dict[str, Cell]


@dataclass(frozen=True)
class PartClasses:
    """The section: a sentence, the table of the first parts, what is folded (further parts, what restoring gains), and
    what to know of them."""

    sentence: str
    kinds: Table
    further: tuple[Table, ...]
    note: str
    definitions: tuple[Fact, ...]


def part_classes(report: AttributeReport) -> PartClasses | None:
    """The section of a report; none where nothing was measured layer by layer, or no part was tried."""
    found = report.token_classes
    if found is None or not found.parts:
        return None
    told = _told(report)
    first, others = told[: _BESIDE - 1], _beside(told[_BESIDE - 1 :])
    cost = _cost(report)
    restored = [site for site in told if any(one.restored is not None for one in site.classes)]
    return PartClasses(
        sentence=class_sentence(report),
        kinds=_table(found, f"The worst parts {_BY_KIND}", [_whole(report, found), *map(cost, first)]),
        further=(
            *(_table(found, f"Further parts {_BY_KIND}", [*map(cost, some)]) for some in others),
            *(
                _table(found, f"What restoring a part gains {_BY_KIND}", [*map(_restored, some)])
                for some in _beside(restored)
            ),
        ),
        note=_note(found, report),
        definitions=tuple(Fact(visible(one.title), visible(one.definition)) for one in found.classes),
    )


def class_sentence(report: AttributeReport) -> str:
    """Which kinds of token each of the first parts hurts more than all others, and which less, beyond chance; empty
    where kinds are not told, or no part was looked into."""
    found = report.token_classes
    looked = first_sites(report)
    if found is None or not found.parts or not looked:
        return ""
    parts = [visible(f"{site.name} costs {told}") for site in looked if (told := _against(site, found))]
    if parts:
        return f"{'; '.join(parts)}: each against the part’s own mean on all other tokens."
    if not found.judged:
        return "Too few documents hold these kinds of token to tell which of them a part hurts more than the others."
    return (
        "No part is shown to hurt one kind of token more or less than the others, all parts and kinds taken together."
    )


def _against(site: Site, found: SubsetClasses) -> str:
    titles = {one.name: lowered(one.title) for one in found.classes}
    sure = [
        (one.difference.mean, titles.get(one.name, one.name))
        for one in site.classes
        if one.p_value is not None and one.p_value < LEVEL and one.difference is not None and one.difference.mean
    ]
    sure.sort(key=lambda pair: -abs(pair[0]))
    parts = []
    for word, sign in (("more", 1), ("less", -1)):
        names = [name for gap, name in sure if gap * sign > 0]
        parts += [f"{word} on {listed(names)}"] if names else []
    return " and ".join(parts)


def _told(report: AttributeReport) -> list[Site]:
    """The parts that were looked into, then the others as they are ranked."""
    first = first_sites(report)
    others = [site for site in report.sites if site not in first]
    return [site for site in (*first, *others) if site.classes][:_PARTS]


def _beside(sites: Sequence[Site]) -> list[Sequence[Site]]:
    """As many at once as stand beside each other."""
    return [sites[start : start + _BESIDE] for start in range(0, len(sites), _BESIDE)]


def _table(found: SubsetClasses, caption: str, columns: Sequence[_PartCells]) -> Table:
    """A row for each kind, a column for each part."""
    positions = found.positions
    kinds = [("", "All tokens", positions), *((one.name, visible(one.title), one.tokens) for one in found.classes)]
    kinds += [(_IN_NONE, NONE, found.none)] if found.none else []
    return Table(
        caption=caption,
        columns=(Column("Kind", "name"), *(Column(f"{visible(one.name)}, nats") for one in columns)),
        rows=tuple(
            (
                Cell(title, f"{fmt.counted(tokens, 'token')}, {fmt.percent(tokens / max(1, positions))} %"),
                *(one.cells.get(name, Cell(fmt.NONE)) for one in columns),
            )
            for name, title, tokens in kinds
        ),
    )


def _whole(report: AttributeReport, found: SubsetClasses) -> _PartCells:
    alignment = None if report.internals is None else report.internals.alignment
    total = report.whole.transformers if report.whole is not None else None if alignment is None else alignment.total
    every = {} if total is None else {"": _cell(total)}
    return _PartCells("Whole candidate", every | {one.name: _class_cell(one) for one in found.whole})


def _cost(report: AttributeReport) -> Callable[[Site], _PartCells]:
    """What a part costs, alone in the reference."""

    def cells(site: Site) -> _PartCells:
        every = _cell(Mean(mean=site.nats, ci=site.ci))
        if report.subset is not None and site.tokens < report.subset.positions:
            every = replace(every, note=f"{every.note}, on the first {fmt.counted(site.tokens, 'token')}")
        return _PartCells(site.name, {"": every} | {one.name: _class_cell(one) for one in site.classes})

    return cells


def _restored(site: Site) -> _PartCells:
    """What the candidate gains where a part is the reference's again."""
    gains = {"": site.restored} | {one.name: one.restored for one in site.classes}
    return _PartCells(site.name, {kind: _cell(gain) for kind, gain in gains.items() if gain is not None})


def _cell(mean: Mean) -> Cell:
    found = mean_text(mean)
    return Cell(found.value, found.interval or "no interval")


def _class_cell(one: SiteClass) -> Cell:
    nats = mean_text(one.nats)
    share = "" if one.share is None else f", {fmt.percent(one.share)} % of it"
    sure = one.p_value is not None and one.p_value < LEVEL
    return Cell(nats.value, f"{nats.interval or 'no interval'}{share}", strong=sure)


def _note(found: SubsetClasses, report: AttributeReport) -> str:
    """What the numbers are, and what so many of them mean."""
    told = [
        "Mean nats over the tokens of a kind, and the kind’s share of the part’s summed nats: a share above that of "
        "the tokens points where more is lost. A token may be of several kinds, so that shares do not add up.",
        f"Kinds are told of {_parts(found, report)}; each interval is a 95 % one of its own, and a kind in too few "
        "documents has none and is not judged.",
    ]
    if found.parts > _PARTS:
        told.append(
            f"{_PARTS} of these parts stand here, those that were looked into first; the report’s JSON has all."
        )
    if report.not_swapped:
        told.append("Tokens are all those of the windows that parts were measured on, scored or not.")
    if found.judged:
        told.append(
            "Bold is where a part that was looked into differs, on the tokens of a kind, from its own mean on all "
            f"others (p < {LEVEL:g}, adjusted over {fmt.counted(found.judged, 'difference')} by Holm’s rule)."
        )
    if found.absent:
        told.append(f"Not in this part of the text: {', '.join(map(visible, found.absent))}.")
    return " ".join(told)


def _parts(found: SubsetClasses, report: AttributeReport) -> str:
    if found.parts == len(report.sites):
        return "the one part" if found.parts == 1 else f"all {found.parts} parts"
    return f"the first {found.parts} of {fmt.counted(len(report.sites), 'part')}"
